-- Purpose: finds roles that act as the application and are members of a predefined role for monitoring,
--          maintenance or administration.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  )
select
  'predefined_role_wide' as check_id, 'warning' as severity, 'role' as object_type,
  pg_catalog.quote_ident(r.rolname) as object,
  pg_catalog.format('acts as the application and is a member of %I, whose rights are for the server '
                    'as a whole', g.rolname) as problem,
  'end the membership, and give it to a login of its own' as remedy,
  case when exists (select from pg_catalog.pg_auth_members as m
                    where m.roleid = g.oid and m.member = r.oid)
    then pg_catalog.format('revoke %I from %I;', g.rolname, r.rolname) end as statement
from reach
join pg_catalog.pg_roles as r on r.oid = reach.runtime
join pg_catalog.pg_roles as g on g.oid = reach.target
where g.rolname ~ '^pg_' and not r.rolsuper
  -- Of these runtime_role_predefined and table_owner_reachable speak.
  and g.rolname not in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                        'pg_read_all_data', 'pg_database_owner')
order by r.rolname, g.rolname

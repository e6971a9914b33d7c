-- Purpose: finds roles that act as the application and are members of a predefined role that reads or
--          writes past the server's access control.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  )
select
  'runtime_role_predefined' as check_id, 'error' as severity, 'role' as object_type,
  pg_catalog.quote_ident(r.rolname) as object,
  pg_catalog.format('acts as the application and is a member of %I: it reaches past the server''s '
                    'access control', g.rolname) as problem,
  'end the membership' as remedy,
  (select m.statement
   from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.memberships')::json)
     as m (runtime bigint, role bigint, target bigint, statement text)
   where m.role = m.target and m.role = g.oid::bigint and m.runtime = r.oid::bigint) as statement
from reach
join pg_catalog.pg_roles as r on r.oid = reach.runtime
join pg_catalog.pg_roles as g on g.oid = reach.target
where g.rolname in ('pg_execute_server_program', 'pg_read_server_files', 'pg_write_server_files',
                    'pg_read_all_data')
order by r.rolname, g.rolname

-- Purpose: finds roles that act as the application and are members of a predefined role for monitoring,
--          maintenance or administration: one finding for each membership that leads to one.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  -- By which membership of its own; by way of another role of the application it is that one's.
  membership as materialized (
    select m.runtime::oid as runtime, m.role::oid as role, m.target::oid as target, m.statement
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.memberships')::json)
      as m (runtime bigint, role bigint, target bigint, statement text)
  ),
  -- Of these runtime_role_predefined and table_owner_reachable speak.
  elsewhere (name) as (
    values ('pg_execute_server_program'), ('pg_read_server_files'), ('pg_write_server_files'),
           ('pg_read_all_data'), ('pg_database_owner')
  ),
  led as (
    select m.runtime, m.role, m.statement,
           -- What the role in which the membership is has in its turn ends with it.
           coalesce(pg_catalog.max(g.rolname) filter (where m.role = m.target),
                    pg_catalog.string_agg(g.rolname, ', ' order by g.rolname)) as names
    from membership as m
    join pg_catalog.pg_roles as g on g.oid = m.target
    where g.rolname ~ '^pg_' and g.rolname not in (select elsewhere.name from elsewhere)
    group by m.runtime, m.role, m.statement
  )
select
  'predefined_role_wide' as check_id, 'warning' as severity, 'role' as object_type,
  pg_catalog.quote_ident(r.rolname) as object,
  pg_catalog.format('acts as the application and is a member of %s, whose rights are for the server '
                    'as a whole', led.names) as problem,
  'end the membership, and give it to a login of its own' as remedy,
  -- A membership by way of a third role is for a person to end, at the right place.
  case when g.rolname ~ '^pg_' then led.statement end as statement
from led
join pg_catalog.pg_roles as r on r.oid = led.runtime
join pg_catalog.pg_roles as g on g.oid = led.role
where not r.rolsuper
order by r.rolname, led.names

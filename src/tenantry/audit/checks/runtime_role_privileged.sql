-- Purpose: finds roles that act as the application and are above row security, or can become a role
--          that is: superuser, BYPASSRLS, CREATEROLE, REPLICATION.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  ),
  -- By which membership of its own; by way of another role of the application it is that one's.
  membership as materialized (
    select m.runtime::oid as runtime, m.role::oid as role, m.target::oid as target, m.statement
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.memberships')::json)
      as m (runtime bigint, role bigint, target bigint, statement text)
  ),
  way as (
    select reach.runtime, reach.runtime as target, null as statement
    from reach where reach.runtime = reach.target
    union all
    -- A membership by way of a third role is for a person to end, at the right place.
    select m.runtime, m.target,
           pg_catalog.min(m.statement) filter (where m.role = m.target)
    from membership as m
    group by m.runtime, m.target
  ),
  privileged as materialized (
    select way.runtime, way.statement, g.oid, g.rolname,
           pg_catalog.concat_ws(', ',
             case when g.rolsuper then 'superuser' end,
             case when g.rolbypassrls then 'BYPASSRLS' end,
             case when g.rolcreaterole then 'CREATEROLE' end,
             case when g.rolreplication then 'REPLICATION' end) as attributes,
           pg_catalog.concat_ws(' ',
             case when g.rolsuper then 'nosuperuser' end,
             case when g.rolbypassrls then 'nobypassrls' end,
             case when g.rolcreaterole then 'nocreaterole' end,
             case when g.rolreplication then 'noreplication' end) as without
    from way
    join pg_catalog.pg_roles as g on g.oid = way.target
    where g.rolsuper or g.rolbypassrls or g.rolcreaterole or g.rolreplication
  )
select
  'runtime_role_privileged' as check_id, 'error' as severity, 'role' as object_type,
  pg_catalog.quote_ident(r.rolname) as object,
  case when p.oid = p.runtime
    then pg_catalog.format('acts as the application and has %s: row security does not hold it',
                           p.attributes)
    else pg_catalog.format('acts as the application and can become %I, which has %s',
                           p.rolname, p.attributes)
  end as problem,
  case when p.oid = p.runtime then 'take the attribute away, or connect as another role'
    else 'end the membership' end as remedy,
  case when p.oid = p.runtime then pg_catalog.format('alter role %I %s;', r.rolname, p.without)
    else p.statement end as statement
from privileged as p
join pg_catalog.pg_roles as r on r.oid = p.runtime
order by r.rolname, p.oid <> p.runtime, p.rolname

-- Purpose: finds tenant tables, and what shows them, whose owner a role of the application is or can
--          become: an owner switches row security off.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  )
select
  'table_owner_reachable' as check_id, 'error' as severity, 'table' as object_type, t.object,
  case when c.relowner = r.oid
    then pg_catalog.format('%I acts as the application and owns it: it can switch row security off',
                           r.rolname)
    else pg_catalog.format('%I acts as the application and can become its owner %I: it can switch '
                           'row security off', r.rolname, o.rolname) end as problem,
  'let a role own it that cannot log in and that no role of the application is a member of'
    as remedy,
  null as statement
from tenant_table as t
join pg_catalog.pg_class as c on c.oid = t.oid
join reach on reach.target = c.relowner
join pg_catalog.pg_roles as r on r.oid = reach.runtime
join pg_catalog.pg_roles as o on o.oid = c.relowner
order by t.object, c.relowner <> r.oid, r.rolname

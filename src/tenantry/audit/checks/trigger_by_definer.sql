-- Purpose: finds triggers on tenant tables whose function runs as a role that row security does not
--          bind: what the function reads and writes is all tenants'.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  )
select
  'trigger_by_definer' as check_id, 'warning' as severity, 'trigger' as object_type,
  pg_catalog.format('%I on %s', g.tgname, t.object) as object,
  pg_catalog.format('its function %s is SECURITY DEFINER and its owner %I %s: what it does is held by '
                    'no policy', p.oid::pg_catalog.regprocedure, o.rolname,
                    case when o.rolsuper then 'is a superuser' else 'has BYPASSRLS' end) as problem,
  'let a role own the function that row security binds, or let it run as the caller' as remedy,
  null as statement
from tenant_table as t
join pg_catalog.pg_trigger as g
  on g.tgrelid = t.oid and not g.tgisinternal and g.tgenabled in ('O', 'A')
  -- Of a partitioned table, the trigger of the whole speaks for those of its partitions.
  and g.tgparentid = 0
join pg_catalog.pg_proc as p on p.oid = g.tgfoid and p.prosecdef
join pg_catalog.pg_roles as o on o.oid = p.proowner and (o.rolsuper or o.rolbypassrls)
order by 4

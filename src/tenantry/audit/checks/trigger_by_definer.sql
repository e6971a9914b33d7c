-- Purpose: finds triggers that the application sets off and whose function runs as a role that is above
--          it: what the function reads, writes and returns is all tenants'.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  definer as materialized (
    select d.oid::oid as oid, d.above
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.definers')::json)
      as d (oid bigint, above text)
    where d.above is not null
  ),
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  tenant_table as materialized (
    select t.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
    where exists (select from definer)
  ),
  set_off as (
    select g.tgname, g.tgrelid, g.tgfoid, definer.above
    from definer
    join pg_catalog.pg_trigger as g
      on g.tgfoid = definer.oid and not g.tgisinternal and g.tgenabled in ('O', 'A')
      -- Of a partitioned table, the trigger of the whole speaks for those of its partitions.
      and g.tgparentid = 0
    where g.tgrelid in (select t.oid from tenant_table as t)
       or exists (
         select from holder
         where pg_catalog.has_table_privilege(holder.oid, g.tgrelid,
                 'INSERT, UPDATE, DELETE, TRUNCATE')
            or pg_catalog.has_any_column_privilege(holder.oid, g.tgrelid, 'INSERT, UPDATE'))
  )
select
  'trigger_by_definer' as check_id, 'error' as severity, 'trigger' as object_type,
  pg_catalog.format('%I on %I.%I', s.tgname, n.nspname, c.relname) as object,
  pg_catalog.format('its function %s is SECURITY DEFINER and its owner %I %s: what it does is held by '
                    'no policy', p.oid::pg_catalog.regprocedure, o.rolname, s.above) as problem,
  'let a role own the function that row security binds, or let it run as the caller' as remedy,
  null as statement
from set_off as s
join pg_catalog.pg_class as c on c.oid = s.tgrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_proc as p on p.oid = s.tgfoid
join pg_catalog.pg_roles as o on o.oid = p.proowner
order by 4

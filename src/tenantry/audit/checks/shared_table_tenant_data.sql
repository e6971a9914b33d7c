-- Purpose: finds tables without the tenant column, and without row security, whose rows belong to rows
--          of a tenant table and which the application may use: it shows those of all tenants.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct j.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  referring as (
    select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) as object,
           pg_catalog.string_agg(distinct t.object, ', ') as parents
    from pg_catalog.pg_constraint as f
    join tenant_table as t on t.oid = f.confrelid
    join pg_catalog.pg_class as c on c.oid = f.conrelid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where f.contype = 'f' and not c.relrowsecurity and not c.relispartition
      and (pg_catalog.current_setting('tenantry.schemas') = '{}'
           or n.nspname = any (pg_catalog.current_setting('tenantry.schemas')::text[]))
      and c.oid not in (select t.oid from tenant_table as t)
    group by c.oid, n.nspname, c.relname
  )
select
  'shared_table_tenant_data' as check_id, 'error' as severity, 'table' as object_type, r.object,
  pg_catalog.format('its rows belong to rows of %s, and without %I and row security the application '
                    'uses those of all tenants', r.parents,
                    pg_catalog.current_setting('tenantry.tenant_column')) as problem,
  'give the table the tenant column, fill it from the row that is referred to, and wall it off'
    as remedy,
  null as statement
from referring as r
where exists (
  select from runtime
  where pg_catalog.has_table_privilege(runtime.oid, r.oid, 'SELECT, INSERT, UPDATE, DELETE')
     or pg_catalog.has_any_column_privilege(runtime.oid, r.oid, 'SELECT, INSERT, UPDATE'))
order by r.object

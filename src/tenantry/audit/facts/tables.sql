-- Purpose: finds the tables that hold tenants' rows; leaves them in the setting tenantry.tables, a
--          JSON list of {oid, object, schema, name, column, attnum, is_root, is_token, is_partition,
--          exposed}. `object` is the qualified name, quoted; `column` the tenant column as it is
--          named, of the root table its own id, null where that is not there; `exposed` says that a
--          role of tenantry.reach holds any privilege on the table or on one of its columns.
-- Run by:  any role, in the audit's transaction, after facts/reach.sql.
-- Twice:   yes, it reads only.

with
  parameter as materialized (
    select
      pg_catalog.current_setting('tenantry.tenant_column') as tenant_column,
      pg_catalog.current_setting('tenantry.root_table') as root_table,
      pg_catalog.current_setting('tenantry.root_column') as root_column,
      pg_catalog.current_setting('tenantry.token_table') as token_table,
      pg_catalog.current_setting('tenantry.schemas')::text[] as schemas
  ),
  runtime as materialized (
    select distinct r.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint)
  ),
  tenant_table as materialized (
    select c.oid, n.nspname, c.relname, c.relispartition, named.is_root, named.is_token,
           a.attname, a.attnum
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    cross join parameter
    cross join lateral (
      select parameter.root_table in (c.relname, n.nspname || '.' || c.relname) as is_root,
             parameter.token_table in (c.relname, n.nspname || '.' || c.relname) as is_token
    ) as named
    left join pg_catalog.pg_attribute as a
      on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      and a.attname = case when named.is_root then parameter.root_column
                           else parameter.tenant_column end
    where c.relkind in ('r', 'p') and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and (parameter.schemas = '{}' or n.nspname = any (parameter.schemas))
      and (named.is_root or a.attnum is not null)
  ),
  exposed as materialized (
    select distinct t.oid
    from tenant_table as t cross join runtime
    where pg_catalog.has_table_privilege(runtime.oid, t.oid,
            'SELECT, INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
       or pg_catalog.has_any_column_privilege(runtime.oid, t.oid,
            'SELECT, INSERT, UPDATE, REFERENCES')
  )
select
where pg_catalog.set_config('tenantry.tables',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', t.oid::bigint,
            'object', pg_catalog.format('%I.%I', t.nspname, t.relname),
            'schema', t.nspname, 'name', t.relname,
            'column', t.attname, 'attnum', t.attnum,
            'is_root', t.is_root, 'is_token', t.is_token, 'is_partition', t.relispartition,
            'exposed', e.oid is not null)
          order by t.nspname, t.relname)::text, '[]')
   from tenant_table as t left join exposed as e on e.oid = t.oid),
  true) is null

-- Purpose: finds the tables that hold tenants' rows; leaves them in the setting tenantry.tables, a
--          JSON list of {oid, object, schema, name, column, attnum, is_root, is_token, is_partition,
--          exposed}. `object` is the qualified name, quoted; `column` the tenant column as it is
--          named, of the root table its own id, null where that is not there; `exposed` says that a
--          role that acts as the application, or that it can become, holds any privilege on the table
--          or on one of its columns. Of a schema that is not looked at there are the children alone
--          that inherit from a table of one that is: they are read by way of it, and by their names.
-- Run by:  any role, in the audit's transaction, after facts/reach.sql.
-- Twice:   yes, it reads only.

with recursive
  parameter as materialized (
    select
      pg_catalog.current_setting('tenantry.tenant_column') as tenant_column,
      pg_catalog.current_setting('tenantry.root_table') as root_table,
      pg_catalog.current_setting('tenantry.root_column') as root_column,
      pg_catalog.current_setting('tenantry.token_table') as token_table,
      pg_catalog.current_setting('tenantry.schemas')::text[] as schemas
  ),
  reached as materialized (
    select r.target::oid as oid, pg_catalog.bool_or(r.target = r.runtime) as is_runtime
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
    group by r.target
  ),
  -- By its number, and not by its schema, a table is the server's own: a superuser may put one of his
  -- into information_schema, which everybody may use.
  ordinary as materialized (
    select c.oid, n.nspname, c.relname, c.relispartition, c.relowner,
           parameter.root_table in (c.relname, n.nspname || '.' || c.relname) as named_root,
           parameter.root_table = n.nspname || '.' || c.relname as named_in_full,
           parameter.token_table in (c.relname, n.nspname || '.' || c.relname) as is_token,
           parameter.schemas = '{}' or n.nspname = any (parameter.schemas) as looked_at
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    cross join parameter
    where c.relkind in ('r', 'p') and c.relpersistence <> 't' and c.oid >= 16384
  ),
  having_column as materialized (
    select a.attrelid, a.attnum
    from pg_catalog.pg_attribute as a
    cross join parameter
    where a.attname = parameter.tenant_column and a.attnum > 0 and not a.attisdropped
      and a.attrelid in (select o.oid from ordinary as o)
  ),
  -- Of several tables of the root table's name the one that has a tenant column is a tenant's.
  called_root as materialized (
    select o.oid,
           o.named_in_full or parameter.tenant_column = parameter.root_column
           or o.oid not in (select h.attrelid from having_column as h) as is_plainly
    from ordinary as o cross join parameter
    where o.named_root
  ),
  root as materialized (
    select r.oid from called_root as r
    where r.is_plainly or not exists (select from called_root as other where other.is_plainly)
  ),
  related (oid) as (
    select o.oid from ordinary as o
    where o.looked_at
      and (o.oid in (select root.oid from root)
           or o.oid in (select h.attrelid from having_column as h))
    union
    select i.inhrelid from related join pg_catalog.pg_inherits as i on i.inhparent = related.oid
  ),
  tenant_table as materialized (
    select o.oid, o.nspname, o.relname, o.relispartition, o.relowner, named.is_root, o.is_token,
           a.attname, a.attnum
    from ordinary as o
    cross join parameter
    cross join lateral (select o.oid in (select root.oid from root) as is_root) as named
    left join pg_catalog.pg_attribute as a
      on a.attrelid = o.oid and a.attnum > 0 and not a.attisdropped
      and a.attname = case when named.is_root then parameter.root_column
                           else parameter.tenant_column end
    where o.oid in (select related.oid from related) and (named.is_root or a.attnum is not null)
  ),
  -- Whom it can become counts as itself, but for those whose membership is the fault.
  runtime as materialized (
    select reached.oid
    from reached
    join pg_catalog.pg_roles as r on r.oid = reached.oid
    where reached.is_runtime
       or not (r.rolsuper or r.rolbypassrls or r.rolname ~ '^pg_'
               or r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
               or r.oid in (select t.relowner from tenant_table as t))
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

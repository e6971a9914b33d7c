-- Purpose: finds the foreign keys between tenant tables that do not pair tenant column with tenant
--          column; leaves them in the setting tenantry.foreign_keys, a JSON list of {oid, object,
--          far_is_root, changes_rows, rebuilt, cleared, deferred}. `changes_rows` says that the key has
--          an action, CASCADE, SET NULL or SET DEFAULT; `rebuilt` is the statement that makes it anew
--          with the tenant columns, up to its actions, and null where a person has to decide;
--          `cleared` are the columns that an action sets, `deferred` ends the statement.
-- Run by:  any role, in the audit's transaction, after facts/tables.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.attnum, t.is_root
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, attnum smallint, is_root boolean)
  )
select
where pg_catalog.set_config('tenantry.foreign_keys',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', k.oid::bigint,
            'object', pg_catalog.format('%I on %I.%I', k.conname, n.nspname, c.relname),
            'far_is_root', far.is_root,
            'changes_rows', not (k.confdeltype in ('a', 'r') and k.confupdtype in ('a', 'r')),
            'rebuilt', case when target.found and k.confmatchtype = 's' then pg_catalog.format(
              'alter table %1$I.%2$I drop constraint %3$I, '
              'add constraint %3$I foreign key (%4$I, %5$s) references %6$s (%7$I, %8$s)',
              n.nspname, c.relname, k.conname, near_tenant.attname, columns.near,
              k.confrelid::pg_catalog.regclass, far_tenant.attname, columns.far) end,
            'cleared', columns.cleared,
            'deferred', case when k.condeferrable then ' deferrable' else '' end
                        || case when k.condeferred then ' initially deferred' else '' end)
          order by k.oid)::text, '[]')
   from pg_catalog.pg_constraint as k
   join tenant_table as near on near.oid = k.conrelid
   join tenant_table as far on far.oid = k.confrelid
   join pg_catalog.pg_class as c on c.oid = k.conrelid
   join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
   left join pg_catalog.pg_attribute as near_tenant
     on near_tenant.attrelid = near.oid and near_tenant.attnum = near.attnum
   left join pg_catalog.pg_attribute as far_tenant
     on far_tenant.attrelid = far.oid and far_tenant.attnum = far.attnum
   cross join lateral (
     select pg_catalog.string_agg(pg_catalog.quote_ident(near.attname), ', ' order by pair.position)
              as near,
            pg_catalog.string_agg(pg_catalog.quote_ident(far.attname), ', ' order by pair.position)
              as far,
            pg_catalog.string_agg(pg_catalog.quote_ident(near.attname), ', ' order by pair.position)
              filter (where k.confdelsetcols is null or pair.near = any (k.confdelsetcols))
              as cleared
     from rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) with ordinality
       as pair (near, far, position)
     join pg_catalog.pg_attribute as near on near.attrelid = k.conrelid and near.attnum = pair.near
     join pg_catalog.pg_attribute as far on far.attrelid = k.confrelid and far.attnum = pair.far
   ) as columns
   cross join lateral (
     -- What the mended key would refer to: a unique key of the tenant column and the same columns. A
     -- key that holds one of the tenant columns already is for a person to look at.
     select not near.is_root and not far.is_root
            and not near.attnum = any (k.conkey) and not far.attnum = any (k.confkey)
            and exists (
              select from pg_catalog.pg_constraint as u
              where u.conrelid = k.confrelid and u.contype in ('p', 'u') and not u.condeferrable
                and pg_catalog.cardinality(u.conkey) = pg_catalog.cardinality(k.confkey) + 1
                and u.conkey @> (k.confkey || far.attnum)
            ) as found
   ) as target
   where k.contype = 'f'
     -- Of a partitioned table, the key of the whole speaks for those of its partitions.
     and k.conparentid = 0
     and not exists (
       select
       from rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey))
         as pair (near, far)
       where pair.near = near.attnum and pair.far = far.attnum)),
  true) is null

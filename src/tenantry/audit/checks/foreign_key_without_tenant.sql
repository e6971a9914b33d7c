-- Purpose: finds foreign keys between tenant tables that do not pair tenant column with tenant column:
--          they refer into other tenants, and tell what is there. Those that change rows by
--          themselves are foreign_key_cascades.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.attnum, t.is_root
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, attnum smallint, is_root boolean)
  )
select
  'foreign_key_without_tenant' as check_id, 'warning' as severity, 'foreign key' as object_type,
  pg_catalog.format('%I on %I.%I', k.conname, n.nspname, c.relname) as object,
  pg_catalog.format(
    case
      when far.is_root then 'refers to %s by another column than the tenant column: it tells whether '
                           'a tenant is there'
      else 'refers to %s without pairing the tenant columns: a row can refer to another tenant''s, '
           'tells that it is there, and keeps it from being deleted' end,
    k.confrelid::pg_catalog.regclass) as problem,
  'let the key refer by the tenant column and the id together, which takes a unique key of both'
    as remedy,
  case when target.found and k.confmatchtype = 's'
    then pg_catalog.format(
      'alter table %1$I.%2$I drop constraint %3$I, '
      'add constraint %3$I foreign key (%4$I, %5$s) references %6$s (%7$I, %8$s)%9$s;',
      n.nspname, c.relname, k.conname, near_tenant.attname, columns.near,
      k.confrelid::pg_catalog.regclass, far_tenant.attname, columns.far,
      case when k.condeferrable
        then ' deferrable' || case when k.condeferred then ' initially deferred' else '' end
        else '' end) end as statement
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
           as far
  from rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey)) with ordinality
    as pair (near, far, position)
  join pg_catalog.pg_attribute as near on near.attrelid = k.conrelid and near.attnum = pair.near
  join pg_catalog.pg_attribute as far on far.attrelid = k.confrelid and far.attnum = pair.far
) as columns
cross join lateral (
  -- What the mended key would refer to: a unique key of the tenant column and the same columns. A key
  -- that holds one of the tenant columns already is for a person to look at.
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
  and k.confdeltype in ('a', 'r') and k.confupdtype in ('a', 'r')
  and not exists (
    select
    from rows from (pg_catalog.unnest(k.conkey), pg_catalog.unnest(k.confkey))
      as pair (near, far)
    where pair.near = near.attnum and pair.far = far.attnum)
order by 4

-- Purpose: finds tenant columns that can be null: a row of no tenant, which no policy shows and no
--          foreign key checks.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum, t.is_partition, t.exposed
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint, is_partition boolean,
            exposed boolean)
    where t.attnum is not null
  )
select
  'tenant_column_nullable' as check_id, 'warning' as severity, 'column' as object_type,
  pg_catalog.format('%I on %s', t."column", t.object) as object,
  'the tenant column can be null: a row of no tenant is shown to nobody'
    || case when foreign_key.names <> ''
         then ', and is not checked by ' || foreign_key.names else '' end as problem,
  'make the column not null' as remedy,
  pg_catalog.format('alter table %s alter column %I set not null;', t.object, t."column")
    as statement
from tenant_table as t
join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = t.attnum
join pg_catalog.pg_type as y on y.oid = a.atttypid
cross join lateral (
  select coalesce(pg_catalog.string_agg(pg_catalog.quote_ident(k.conname), ', '
                    order by k.conname), '') as names
  from pg_catalog.pg_constraint as k
  where k.conrelid = t.oid and k.contype = 'f' and k.confmatchtype = 's'
    and t.attnum = any (k.conkey)
) as foreign_key
where not a.attnotnull and not y.typnotnull
  and (t.exposed or not t.is_partition)
  -- A check constraint that says so does as well.
  and not exists (
    select from pg_catalog.pg_constraint as k
    where k.conrelid = t.oid and k.contype = 'c' and k.conkey = array[t.attnum]
      and k.convalidated
      and pg_catalog.pg_get_expr(k.conbin, k.conrelid)
          = pg_catalog.format('(%I IS NOT NULL)', t."column"))
order by t.object

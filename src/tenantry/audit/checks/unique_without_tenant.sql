-- Purpose: finds unique and exclusion constraints and unique indexes of tenant tables that do not
--          hold the tenant column: they tell a tenant which values another one has.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint)
    where t.attnum is not null
  )
select
  'unique_without_tenant' as check_id, 'warning' as severity,
  case coalesce(k.contype, 'i') when 'p' then 'primary key' when 'u' then 'unique constraint'
    when 'x' then 'exclusion constraint' else 'unique index' end as object_type,
  pg_catalog.format('%I on %s', c.relname, t.object) as object,
  pg_catalog.format('the key is without %I: a conflict tells that another tenant has the value',
                    t."column") as problem,
  pg_catalog.format('lead the key with %I', t."column") as remedy,
  case
    -- Foreign keys that refer to it have to change with it, and a person decides in which order.
    when k.contype in ('p', 'u')
         and not exists (select from pg_catalog.pg_constraint as f
                         where f.contype = 'f' and f.conindid = i.indexrelid)
      then pg_catalog.format('alter table %s drop constraint %I, add constraint %2$I %s;',
             t.object, k.conname,
             overlay(definition.text placing pg_catalog.format('(%I, ', t."column")
                     from pg_catalog.strpos(definition.text, '(') for 1))
  end as statement
from tenant_table as t
join pg_catalog.pg_index as i on i.indrelid = t.oid
join pg_catalog.pg_class as c on c.oid = i.indexrelid
left join pg_catalog.pg_constraint as k
  on k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x')
cross join lateral (select pg_catalog.pg_get_constraintdef(k.oid) as text) as definition
where (i.indisunique or i.indisexclusion)
  -- Of a partitioned table, the index of the whole speaks for those of its partitions.
  and not c.relispartition
  and not t.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1])
order by t.object, c.relname

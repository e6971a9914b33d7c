-- Purpose: finds large tenant tables without an index led by the tenant column: each query of each
--          tenant reads the rows of all.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint, is_partition boolean,
            exposed boolean)
    where t.attnum is not null and (t.exposed or not t.is_partition)
  )
select
  'index_missing_tenant' as check_id, 'note' as severity, 'table' as object_type, t.object,
  pg_catalog.format('about %s rows and no index led by %I: each query reads those of all tenants',
                    c.reltuples::bigint, t."column") as problem,
  pg_catalog.format('lead the primary key with %I, or create an index', t."column") as remedy,
  pg_catalog.format('create index on %s (%I);', t.object, t."column") as statement
from tenant_table as t
join pg_catalog.pg_class as c on c.oid = t.oid
-- A smaller table is read as a whole anyway.
where c.reltuples >= 10000
  and not exists (
    select from pg_catalog.pg_index as i
    where i.indrelid = t.oid and i.indkey[0] = t.attnum and i.indisvalid and i.indpred is null)
order by t.object

-- Purpose: finds tenant columns whose collation calls different texts equal: to one tenant's policy,
--          another's id is its own.
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
  'tenant_column_collation' as check_id, 'error' as severity, 'column' as object_type,
  pg_catalog.format('%I on %s', t."column", t.object) as object,
  pg_catalog.format('its collation %I.%I is not deterministic: tenants whose ids differ in case, or in '
                    'accents, are one', n.nspname, l.collname) as problem,
  'give the column a deterministic collation, and write its policies anew' as remedy,
  null as statement
from tenant_table as t
join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = t.attnum
join pg_catalog.pg_collation as l on l.oid = a.attcollation and not l.collisdeterministic
join pg_catalog.pg_namespace as n on n.oid = l.collnamespace
order by t.object

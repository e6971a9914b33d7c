-- Purpose: finds columns of tenant tables that are numbered across all tenants: the gaps between one's
--          own numbers tell how much the others write, and their ids can be guessed.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, is_partition boolean, exposed boolean)
    where t.exposed or not t.is_partition
  ),
  numbered as (
    select a.attrelid, a.attnum
    from pg_catalog.pg_attribute as a
    where a.attidentity <> '' and a.attnum > 0 and not a.attisdropped
      and a.attrelid in (select t.oid from tenant_table as t)
    union
    select a.adrelid, a.adnum
    from pg_catalog.pg_attrdef as a
    join pg_catalog.pg_depend as d
      on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = a.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    join pg_catalog.pg_class as s on s.oid = d.refobjid and s.relkind = 'S'
    where a.adrelid in (select t.oid from tenant_table as t)
  )
select
  'serial_identifier' as check_id, 'note' as severity, 'column' as object_type,
  pg_catalog.format('%I on %s', a.attname, t.object) as object,
  'it is numbered across all tenants: the gaps tell how much the others write, and their ids can be '
  'guessed' as problem,
  'use uuid with gen_random_uuid(), or number within the tenant' as remedy,
  null as statement
from tenant_table as t
join numbered on numbered.attrelid = t.oid
join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = numbered.attnum
order by t.object, a.attname

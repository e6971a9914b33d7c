-- Purpose: finds foreign keys between tenant tables that do not pair tenant column with tenant column:
--          they refer into other tenants, and tell what is there. Those that change rows by
--          themselves are foreign_key_cascades.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

select
  'foreign_key_without_tenant' as check_id, 'warning' as severity, 'foreign key' as object_type,
  f.object,
  pg_catalog.format(
    case
      when f.far_is_root then 'refers to %s by another column than the tenant column: it tells '
                              'whether a tenant is there'
      else 'refers to %s without pairing the tenant columns: a row can refer to another tenant''s, '
           'tells that it is there, and keeps it from being deleted' end,
    k.confrelid::pg_catalog.regclass) as problem,
  'let the key refer by the tenant column and the id together, which takes a unique key of both'
    as remedy,
  f.rebuilt || f.deferred || ';' as statement
from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.foreign_keys')::json)
  as f (oid bigint, object text, far_is_root boolean, changes_rows boolean, rebuilt text,
        deferred text)
join pg_catalog.pg_constraint as k on k.oid = f.oid::oid
where not f.changes_rows
order by 4

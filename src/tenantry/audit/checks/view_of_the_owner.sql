-- Purpose: finds views that run with their owner's rights, where the wall holds that owner as it holds
--          the application: they show no other tenant's rows while FORCE stays as it is.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  )
select
  'view_of_the_owner' as check_id, 'note' as severity, 'view' as object_type, v.object,
  pg_catalog.format('it runs with the rights of %I, whom FORCE and the wall hold: as soon as they do '
                    'not, it shows all tenants', v.owner) as problem,
  'make the view security_invoker: then the caller''s own rights and policies apply' as remedy,
  pg_catalog.format('alter view %s set (security_invoker = true);', v.object) as statement
from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.views')::json)
  as v (oid bigint, object text, owner text, bound boolean)
where v.bound
  and exists (
    select from holder
    where pg_catalog.has_table_privilege(holder.oid, v.oid::oid, 'SELECT, INSERT, UPDATE, DELETE')
       or pg_catalog.has_any_column_privilege(holder.oid, v.oid::oid, 'SELECT, INSERT, UPDATE'))
order by v.object

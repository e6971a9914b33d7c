-- Purpose: finds what shows tenants' rows past row security and is granted to the application: views
--          whose owner no wall holds, materialized views, foreign tables.
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
  'view_without_security_invoker' as check_id, 'error' as severity,
  case v.kind when 'v' then 'view' when 'm' then 'materialized view' else 'foreign table' end
    as object_type,
  v.object,
  case v.kind
    when 'v' then 'a view without security_invoker shows what its owner may see'
    when 'm' then 'a materialized view has no row security, and is granted to the application'
    else 'a foreign table has no row security, and is granted to the application' end as problem,
  case v.kind when 'v' then 'make the view security_invoker, at each level of nested views'
    else 'revoke the grants; give the application a view or a table with row security' end
    as remedy,
  case v.kind when 'v'
    then pg_catalog.format('alter view %s set (security_invoker = true);', v.object) end
    as statement
from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.views')::json)
  as v (oid bigint, object text, kind text, bound boolean)
where not v.bound
  and exists (
    select from holder
    where pg_catalog.has_table_privilege(holder.oid, v.oid::oid, 'SELECT, INSERT, UPDATE, DELETE')
       or pg_catalog.has_any_column_privilege(holder.oid, v.oid::oid, 'SELECT, INSERT, UPDATE'))
order by v.object

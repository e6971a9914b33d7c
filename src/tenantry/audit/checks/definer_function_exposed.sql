-- Purpose: finds SECURITY DEFINER functions and procedures that the application sets off and whose
--          owner is above it, by row security that does not bind him or by rights on the server:
--          whatever they return or change is all tenants'.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  definer as materialized (
    select d.oid::oid as oid, d.way, d.above
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.definers')::json)
      as d (oid bigint, way text, above text)
    where d.way is not null and d.above is not null
  )
select
  'definer_function_exposed' as check_id, 'error' as severity,
  case p.prokind when 'p' then 'procedure' else 'function' end as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('the application %s and it runs as %I, who %s: row security does not hold it',
                    d.way, o.rolname, d.above) as problem,
  'let a role own it that row security binds, let it run as the caller, or revoke EXECUTE' as remedy,
  null as statement
from definer as d
join pg_catalog.pg_proc as p on p.oid = d.oid
join pg_catalog.pg_roles as o on o.oid = p.proowner
order by 4

-- Purpose: finds SECURITY DEFINER functions and procedures that the application sets off, whose owner
--          row security binds, and whose text may do what it does not bind.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  definer as materialized (
    select d.oid::oid as oid, d.way, d.lends
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.definers')::json)
      as d (oid bigint, way text, lends text)
    where d.way is not null and d.lends is not null
  )
select
  'definer_function_lends' as check_id, 'warning' as severity,
  case p.prokind when 'p' then 'procedure' else 'function' end as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('the application %s and it runs as %I: %s', d.way,
                    pg_catalog.pg_get_userbyid(p.proowner), d.lends) as problem,
  'let a role own it that has no more than the function needs, or revoke EXECUTE' as remedy,
  null as statement
from definer as d
join pg_catalog.pg_proc as p on p.oid = d.oid
order by 4

-- Purpose: finds SECURITY DEFINER functions and procedures that the application may call and whose
--          owner row security does not bind: whatever they return or change is all tenants'.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
    -- A superuser has every privilege on everything: runtime_role_privileged says so once.
    where not r.rolsuper
  )
select
  'definer_function_exposed' as check_id, 'error' as severity,
  case p.prokind when 'p' then 'procedure' else 'function' end as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('the application may call it and it runs as %I, who %s: row security does not '
                    'hold it', o.rolname,
                    case when o.rolsuper then 'is a superuser' else 'has BYPASSRLS' end) as problem,
  'let a role own it that row security binds, let it run as the caller, or revoke EXECUTE' as remedy,
  null as statement
from pg_catalog.pg_proc as p
join pg_catalog.pg_roles as o on o.oid = p.proowner and (o.rolsuper or o.rolbypassrls)
where p.prosecdef
  -- Nobody can call what is made for triggers: trigger_by_definer looks at those.
  and p.prorettype not in ('pg_catalog.trigger'::pg_catalog.regtype,
                           'pg_catalog.event_trigger'::pg_catalog.regtype)
  and exists (
    select from runtime
    where pg_catalog.has_function_privilege(runtime.oid, p.oid, 'EXECUTE')
      and pg_catalog.has_schema_privilege(runtime.oid, p.pronamespace, 'USAGE'))
order by 4

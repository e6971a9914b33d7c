-- Purpose: finds SECURITY DEFINER functions and procedures that PUBLIC may execute, in schemas that the
--          application gets into: nobody decided who may call them.
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
  'definer_function_public' as check_id, 'warning' as severity,
  case p.prokind when 'p' then 'procedure' else 'function' end as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('every role may execute it as %I%s', pg_catalog.pg_get_userbyid(p.proowner),
    case when p.proacl is null then ', since nobody has revoked that from PUBLIC' else '' end)
    as problem,
  'revoke EXECUTE from PUBLIC, and grant it to whom it is for' as remedy,
  pg_catalog.format('revoke execute on routine %s from public;', p.oid::pg_catalog.regprocedure)
    || coalesce(pg_catalog.format(' grant execute on routine %s to %I;',
                                  p.oid::pg_catalog.regprocedure, app.rolname), '') as statement
from pg_catalog.pg_proc as p
left join pg_catalog.pg_roles as app
  on app.rolname = pg_catalog.current_setting('tenantry.app_role')
where p.prosecdef
  -- Nobody can call what is made for triggers.
  and p.prorettype not in ('pg_catalog.trigger'::pg_catalog.regtype,
                           'pg_catalog.event_trigger'::pg_catalog.regtype)
  and exists (
    select
    from pg_catalog.aclexplode(coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as acl
    where acl.grantee = 0)
  and exists (
    select from runtime
    where pg_catalog.has_schema_privilege(runtime.oid, p.pronamespace, 'USAGE'))
order by 4

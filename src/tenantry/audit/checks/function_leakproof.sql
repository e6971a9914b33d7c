-- Purpose: finds functions of the database's own that are marked LEAKPROOF and that the application may
--          call: they see each row before the policies decide whether it is shown.
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
  'function_leakproof' as check_id, 'error' as severity, 'function' as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  'it is LEAKPROOF: it is given the values of rows that row security then hides' as problem,
  'take the mark away, unless its errors, messages and running time tell nothing of its arguments'
    as remedy,
  pg_catalog.format('alter function %s not leakproof;', p.oid::pg_catalog.regprocedure) as statement
from pg_catalog.pg_proc as p
where p.proleakproof
  -- The first id that is not the server's own. What belongs to an extension is its author's claim, or
  -- a decision about an operator that an index needs.
  and p.oid >= 16384
  and not exists (
    select from pg_catalog.pg_depend as d
    where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid
      and d.deptype = 'e')
  and exists (
    select from runtime
    where pg_catalog.has_function_privilege(runtime.oid, p.oid, 'EXECUTE'))
order by 4

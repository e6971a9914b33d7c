-- Purpose: finds policies that differ from the one rule and are contained by a wall: no leak, but one
--          dropped policy away from it, or a restriction nobody expects.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  policy as materialized (
    select p.*
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p (oid bigint, "table" bigint, name text, permissive boolean, command text, to_public boolean,
            exact boolean, excepted boolean, for_authenticator boolean, differs text)
  ),
  walled as materialized (
    select distinct w."table" from policy as w
    where not w.permissive and w.command = 'all' and w.to_public and (w.exact or w.excepted)
  ),
  -- What is asked before the wall is policy_function_early's.
  early as materialized (
    select f.policy
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policy_functions')::json)
      as f (policy bigint, sees_rows boolean)
    where f.sees_rows
  ),
  -- A search takes rows away, and from the role alone as which its function runs.
  search as materialized (
    select s.oid::bigint as oid
    from pg_catalog.pg_policy as s
    join pg_catalog.pg_proc as f on s.polroles = array[f.proowner] and f.prosecdef
    where s.polcmd = 'r' and not s.polpermissive
  )
select
  'policy_contained' as check_id, 'note' as severity, 'policy' as object_type,
  pg_catalog.format('%I on %s', p.name, t.object) as object,
  p.differs || ' (the wall contains it)' as problem,
  'drop the policy, or let it compare the tenant column as the wall does' as remedy,
  null as statement
from policy as p
join tenant_table as t on t.oid = p."table"::oid
where not p.exact and not p.excepted and not p.for_authenticator
  and p."table" in (select walled."table" from walled)
  and p.oid not in (select search.oid from search)
  and p.oid not in (select early.policy from early)
order by t.object, p.name

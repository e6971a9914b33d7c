-- Purpose: finds functions in the policies of tenant tables that look up names where the session's
--          search_path says, so that the application can put something else in their place.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  -- What policies call, by name or by an operator; the server's own functions are not recorded.
  dependency as materialized (
    select d.objid as policy_oid, d.refobjid as oid
    from pg_catalog.pg_depend as d
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    union
    select d.objid, o.oprcode
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_operator as o on o.oid = d.refobjid
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
      and d.refclassid = 'pg_catalog.pg_operator'::pg_catalog.regclass
  ),
  policy as materialized (
    select p.oid::oid as oid, p."table"::oid as table_oid, p.name, p.command, p.to_public, p.permissive,
           p.exact or p.excepted as is_rule
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p (oid bigint, "table" bigint, name text, command text, to_public boolean,
            permissive boolean, exact boolean, excepted boolean)
    -- Without any, the thousands that there may be are not unfolded.
    where exists (select from dependency)
  ),
  -- Behind a wall that is the rule itself, another policy lets no other tenant's row through.
  contained as materialized (
    select distinct policy.table_oid from policy
    where not policy.permissive and policy.command = 'all' and policy.to_public and policy.is_rule
  ),
  called as materialized (
    select d.oid, policy.oid as policy_oid, policy.name, policy.table_oid
    from dependency as d join policy on policy.oid = d.policy_oid
    where policy.table_oid not in (select contained.table_oid from contained)
  ),
  used as (
    select called.oid,
           pg_catalog.string_agg(distinct pg_catalog.format('%I on %I.%I', called.name, n.nspname,
                                                            c.relname), ', ') as names
    from called
    join pg_catalog.pg_class as c on c.oid = called.table_oid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    group by called.oid
  )
select
  'policy_function_unpinned' as check_id, 'warning' as severity, 'function' as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('it has no search_path of its own with pg_temp last: who asks decides what the '
                    'names in it mean; used by %s', used.names) as problem,
  'write its body as BEGIN ATOMIC or RETURN, which finds its names once, or set its search_path'
    as remedy,
  null as statement
from used
join pg_catalog.pg_proc as p on p.oid = used.oid
join pg_catalog.pg_language as l on l.oid = p.prolang
where p.prosqlbody is null and l.lanname not in ('internal', 'c')
  and not exists (
    select from pg_catalog.unnest(p.proconfig) as setting
    where setting ~ '^search_path=(""|(.*, *)?"?pg_temp"?)$')
order by 4

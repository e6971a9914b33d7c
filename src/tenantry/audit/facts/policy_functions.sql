-- Purpose: finds the functions that policies of tenant tables call, by name or by an operator; leaves
--          them in the setting tenantry.policy_functions, a JSON list of {oid, policy, used_by,
--          contained}. `policy` is the policy's oid, `used_by` names it with its table; `contained`
--          says that the table has a wall besides which is the rule itself: another policy lets no
--          other tenant's row through then. The server's own functions are not recorded.
-- Run by:  any role, in the audit's transaction, after facts/policies.sql.
-- Twice:   yes, it reads only.

with
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
    select p.oid::oid as oid, p."table"::oid as table_oid, p.name,
           not p.permissive and p.command = 'all' and p.to_public and (p.exact or p.excepted)
             as is_wall
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p (oid bigint, "table" bigint, name text, command text, to_public boolean,
            permissive boolean, exact boolean, excepted boolean)
    -- Without any, the thousands that there may be are not unfolded.
    where exists (select from dependency)
  )
select
where pg_catalog.set_config('tenantry.policy_functions',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', d.oid::bigint,
            'policy', policy.oid::bigint,
            'used_by', pg_catalog.format('%I on %I.%I', policy.name, n.nspname, c.relname),
            'contained', policy.table_oid in (select w.table_oid from policy as w where w.is_wall))
          order by d.oid, policy.oid)::text, '[]')
   from dependency as d
   join policy on policy.oid = d.policy_oid
   join pg_catalog.pg_class as c on c.oid = policy.table_oid
   join pg_catalog.pg_namespace as n on n.oid = c.relnamespace),
  true) is null

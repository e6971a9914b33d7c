-- Purpose: finds the functions that policies of tenant tables call, by name or by an operator; leaves
--          them in the setting tenantry.policy_functions, a JSON list of {oid, policy, used_by,
--          contained, sees_rows, wall}. `policy` is the policy's oid, `used_by` names it with its
--          table; `contained` says that a wall which is the rule itself is asked before the policy is:
--          no other tenant's row gets as far as the function then; `sees_rows` that the function is
--          called by a restrictive policy beside a wall of which that is not so, and is nobody's
--          promise; `wall` is the wall's name. The server's own functions are not recorded.
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
    select p.oid::oid as oid, p."table"::oid as table_oid, p.name, p.permissive, p.command,
           not p.permissive and p.command = 'all' and p.to_public and (p.exact or p.excepted)
             as is_wall
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p (oid bigint, "table" bigint, name text, command text, to_public boolean,
            permissive boolean, exact boolean, excepted boolean)
    -- Without any, the thousands that there may be are not unfolded.
    where exists (select from dependency)
  ),
  wall as materialized (
    select policy.table_oid, pg_catalog.min(policy.name collate "C") as name
    from policy
    where policy.is_wall
    group by policy.table_oid
  )
select
where pg_catalog.set_config('tenantry.policy_functions',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', d.oid::bigint,
            'policy', policy.oid::bigint,
            'used_by', pg_catalog.format('%I on %I.%I', policy.name, n.nspname, c.relname),
            'contained', earlier.answer,
            -- An INSERT policy is asked of the row that the statement itself brings.
            'sees_rows', wall.name is not null and not earlier.answer and policy.command <> 'insert'
                         and not promised.answer,
            'wall', wall.name)
          order by d.oid, policy.oid)::text, '[]')
   from dependency as d
   join policy on policy.oid = d.policy_oid
   join pg_catalog.pg_class as c on c.oid = policy.table_oid
   join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
   left join wall on wall.table_oid = policy.table_oid
   cross join lateral (
     -- Restrictive policies are asked in the order of their names, byte by byte, and the permissive
     -- ones last.
     select wall.name is not null
            and (policy.permissive or wall.name < policy.name collate "C") as answer
   ) as earlier
   cross join lateral (
     -- Code of an extension's author, as the operators of citext are, in which searches are written.
     select exists (
       select
       from pg_catalog.pg_proc as f
       join pg_catalog.pg_language as l on l.oid = f.prolang and l.lanname in ('c', 'internal')
       join pg_catalog.pg_depend as m
         on m.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and m.objid = f.oid
         and m.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and m.deptype = 'e'
       where f.oid = d.oid) as answer
   ) as promised),
  true) is null

-- Purpose: finds functions in restrictive policies of tenant tables that are asked before the wall: they
--          are given the rows of all tenants.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  seeing as (
    select f.used_by, f.policy::oid as policy_oid, f.wall,
           pg_catalog.string_agg(f.oid::oid::pg_catalog.regprocedure::text, ', '
             order by f.oid::oid::pg_catalog.regprocedure::text collate "C") as functions
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policy_functions')::json)
      as f (oid bigint, policy bigint, used_by text, sees_rows boolean, wall text)
    where f.sees_rows
    group by f.used_by, f.policy, f.wall
  )
select
  'policy_function_early' as check_id, 'error' as severity, 'policy' as object_type,
  s.used_by as object,
  pg_catalog.format('it calls %s before the wall is asked: the function is given the rows of all '
                    'tenants', s.functions) as problem,
  'give the policy a name that sorts after the wall''s, or write it without the function' as remedy,
  -- A name that begins with the wall's sorts after it.
  case when pg_catalog.octet_length(late.name) <= 63
            and not exists (select from pg_catalog.pg_policy as other
                            where other.polrelid = p.polrelid and other.polname = late.name)
    then pg_catalog.format('alter policy %I on %s rename to %I;', p.polname,
                           p.polrelid::pg_catalog.regclass, late.name) end as statement
from seeing as s
join pg_catalog.pg_policy as p on p.oid = s.policy_oid
cross join lateral (select s.wall || '_' || p.polname as name) as late
order by 4

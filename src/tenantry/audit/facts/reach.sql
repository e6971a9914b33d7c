-- Purpose: finds the roles that act as the application and all that each of them can become; leaves
--          them in the setting tenantry.reach, a JSON list of {runtime, target} (oids), each role
--          being its own first target.
-- Run by:  any role, in the audit's transaction, which sets the parameters.
-- Twice:   yes, it reads only.

-- Who acts as the application: its role and every role that may act as it (a membership that can
-- neither be inherited nor be SET ROLE'd into is administration, not use); and all that each of them
-- can become, administration included, since who administers a role can grant it to himself.
with recursive
  membership as (
    select m.roleid, m.member,
           -- Columns of PostgreSQL 16 and later; before, each membership was both.
           coalesce((pg_catalog.to_jsonb(m) ->> 'inherit_option')::boolean, true)
           or coalesce((pg_catalog.to_jsonb(m) ->> 'set_option')::boolean, true) as usable
    from pg_catalog.pg_auth_members as m
    union all
    select owner.oid, d.datdba, true
    from pg_catalog.pg_database as d
    join pg_catalog.pg_roles as owner on owner.rolname = 'pg_database_owner'
    where d.datname = pg_catalog.current_database()
  ),
  runtime (oid) as (
    select r.oid from pg_catalog.pg_roles as r
    where r.rolname = pg_catalog.current_setting('tenantry.app_role')
    union
    select m.member from runtime join membership as m on m.roleid = runtime.oid and m.usable
  ),
  reach (runtime, target) as (
    select runtime.oid, runtime.oid from runtime
    union
    select reach.runtime, m.roleid from reach join membership as m on m.member = reach.target
  )
select
where pg_catalog.set_config('tenantry.reach',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'runtime', reach.runtime::bigint, 'target', reach.target::bigint))::text, '[]')
   from reach),
  true) is null

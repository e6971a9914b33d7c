-- Purpose: leaves in the setting tenantry.holders, a JSON list of {oid, grantee}, to whom a privilege
--          is granted when the application has it: PUBLIC (oid 0), the roles that act as the
--          application and those they can become. `grantee` is the name as a statement writes it.
-- Run by:  any role, in the audit's transaction, after facts/reach.sql and facts/tables.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.target::oid as oid, pg_catalog.bool_or(r.target = r.runtime) as is_runtime
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
    group by r.target
  ),
  owner as materialized (
    select distinct c.relowner as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
  ),
  holder (oid, grantee) as (
    select 0::oid, 'public'
    union all
    select r.oid, pg_catalog.quote_ident(r.rolname)
    from reach
    join pg_catalog.pg_roles as r on r.oid = reach.oid
    -- Left out is whose grants are right and whose membership is the fault, which other checks name:
    -- superusers, predefined roles, who sees all tenants by design, and the owner.
    where not r.rolsuper and r.rolname !~ '^pg_'
      and (reach.is_runtime
           or not (r.rolbypassrls or r.oid in (select owner.oid from owner)
                   or r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')))
  )
select
where pg_catalog.set_config('tenantry.holders',
  (select pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', h.oid::bigint, 'grantee', h.grantee) order by h.oid)::text
   from holder as h),
  true) is null

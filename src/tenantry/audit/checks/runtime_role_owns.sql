-- Purpose: finds what a role of the application owns, or one that it can become, beside what holds
--          tenant tables: an owner replaces a function, grants, drops.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.target::oid as oid, pg_catalog.bool_or(r.target = r.runtime) as is_runtime,
           pg_catalog.string_agg(pg_catalog.quote_ident(a.rolname), ', ' order by a.rolname)
             as runtimes
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
    join pg_catalog.pg_roles as a on a.oid = r.runtime::oid
    group by r.target
  ),
  tenant_table as materialized (
    select t.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
  ),
  -- Whom other checks do not name.
  role as materialized (
    select h.oid::oid as oid, h.grantee, reach.is_runtime, reach.runtimes
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
    join reach on reach.oid = h.oid::oid
  )
select
  'runtime_role_owns' as check_id, 'warning' as severity, thing.type as object_type,
  thing.identity as object,
  case when r.is_runtime then pg_catalog.format('%s acts as the application and owns it', r.grantee)
    else pg_catalog.format('%s acts as the application and can become its owner %s', r.runtimes,
                           r.grantee) end as problem,
  'let a role own it that cannot log in and that no role of the application is a member of'
    as remedy,
  null as statement
from role as r
join pg_catalog.pg_shdepend as d
  on d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.refobjid = r.oid
     and d.deptype = 'o'
left join pg_catalog.pg_database as here on here.oid = d.dbid
cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid)
  as thing (type, schema, name, identity)
where (d.dbid = 0 or here.datname = pg_catalog.current_database())
  -- This database is table_owner_reachable's affair, another one is its own.
  and d.classid not in ('pg_catalog.pg_database'::pg_catalog.regclass,
                        'pg_catalog.pg_default_acl'::pg_catalog.regclass,
                        -- Its owner is the role that it is for, whoever made it.
                        'pg_catalog.pg_user_mapping'::pg_catalog.regclass)
  and coalesce(thing.schema, '') !~ '^pg_(temp|toast)' and thing.identity !~ '^pg_(temp|toast)'
  and not (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           and (
             -- Of what another role owns that way role_reachable speaks.
             not r.is_runtime and exists (
               select from pg_catalog.pg_class as c
               where c.oid = d.objid and c.relkind in ('r', 'p', 'v', 'm', 'f'))
             -- Of these table_owner_reachable.
             or d.objid in (select t.oid from tenant_table as t)))
  and not (d.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
           and d.objid in (
             select c.relnamespace
             from tenant_table as t join pg_catalog.pg_class as c on c.oid = t.oid))
order by thing.type, thing.identity, r.grantee

-- Purpose: finds what a role of the application owns beside tenant tables: an owner replaces a
--          function, grants, drops.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.oid, r.rolname
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
    where not r.rolsuper
  )
select
  'runtime_role_owns' as check_id, 'warning' as severity, thing.type as object_type,
  thing.identity as object,
  pg_catalog.format('%I acts as the application and owns it', r.rolname) as problem,
  'let a role own it that cannot log in and that no role of the application is a member of'
    as remedy,
  null as statement
from runtime as r
join pg_catalog.pg_shdepend as d
  on d.refclassid = 'pg_catalog.pg_authid'::pg_catalog.regclass and d.refobjid = r.oid
     and d.deptype = 'o'
left join pg_catalog.pg_database as here on here.oid = d.dbid
cross join lateral pg_catalog.pg_identify_object(d.classid, d.objid, d.objsubid)
  as thing (type, schema, name, identity)
where (d.dbid = 0 or here.datname = pg_catalog.current_database())
  -- Another database is that database's affair.
  and (d.classid <> 'pg_catalog.pg_database'::pg_catalog.regclass
       or thing.name = pg_catalog.quote_ident(pg_catalog.current_database()))
  and d.classid <> 'pg_catalog.pg_default_acl'::pg_catalog.regclass
  and coalesce(thing.schema, '') !~ '^pg_(temp|toast)' and thing.identity !~ '^pg_(temp|toast)'
  -- Of these table_owner_reachable speaks.
  and not (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
           and d.objid in (
             select t.oid::oid
             from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
               as t (oid bigint)))
order by thing.type, thing.identity, r.rolname

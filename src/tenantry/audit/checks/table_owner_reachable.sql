-- Purpose: finds tenant tables, their schemas and the database, whose owner a role of the application
--          is or can become: the owner of a table switches row security off, that of a schema drops the
--          table, and that of the database is the owner of the schema public.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  owned (kind, object, owner, harm) as (
    select 'table', t.object, c.relowner, 'switch row security off'
    from tenant_table as t join pg_catalog.pg_class as c on c.oid = t.oid
    union
    select 'schema', pg_catalog.quote_ident(n.nspname), n.nspowner, 'drop the tables in it'
    from tenant_table as t
    join pg_catalog.pg_class as c on c.oid = t.oid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    -- The role of this name is whoever owns the database, which is found once.
    where n.nspowner <> (select r.oid from pg_catalog.pg_roles as r
                         where r.rolname = 'pg_database_owner')
    union
    select 'database', pg_catalog.quote_ident(d.datname), d.datdba,
           'drop it, and what is in the schemas that the database''s owner owns, as public is'
    from pg_catalog.pg_database as d
    where d.datname = pg_catalog.current_database()
  )
select
  'table_owner_reachable' as check_id, 'error' as severity, owned.kind as object_type, owned.object,
  case when o.oid = r.oid
    then pg_catalog.format('%I acts as the application and owns it: it can %s', r.rolname,
                           owned.harm)
    else pg_catalog.format('%I acts as the application and can become its owner %I: it can %s',
                           r.rolname, o.rolname, owned.harm) end as problem,
  'let a role own it that cannot log in and that no role of the application is a member of'
    as remedy,
  null as statement
from owned
join reach on reach.target = owned.owner
join pg_catalog.pg_roles as r on r.oid = reach.runtime
join pg_catalog.pg_roles as o on o.oid = owned.owner
-- Where the same role owns tenant tables, that is found at them.
where owned.kind = 'table'
   or not r.rolsuper and not o.rolsuper and not exists (
     select from owned as within where within.kind = 'table' and within.owner = owned.owner)
order by owned.object, o.oid <> r.oid, r.rolname

-- Purpose: finds tenant tables, their schemas and the database that a role of the application owns, and
--          the memberships by which one can become the owner: the owner of a table switches row security
--          off, that of a schema drops the table, and that of the database is the owner of the schema
--          public.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint)
  ),
  -- By which membership of its own; by way of another role of the application it is that one's.
  membership as materialized (
    select m.runtime::oid as runtime, m.role::oid as role, m.target::oid as target, m.statement
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.memberships')::json)
      as m (runtime bigint, role bigint, target bigint, statement text)
  ),
  -- Of the ways to one owner the direct one is named, and any other once that is ended.
  way as materialized (
    select m.runtime, m.target,
           -- A membership by way of a third role is for a person to end, at the right place.
           case when m.role = m.target then m.statement end as statement
    from membership as m
    where m.role = m.target
       or not exists (select from membership as direct
                      where direct.runtime = m.runtime and direct.role = m.target)
  ),
  tenant_table as materialized (
    select t.object, c.relowner, c.relnamespace
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
  ),
  owner as materialized (
    select t.relowner as oid, pg_catalog.count(*) as tables, pg_catalog.min(t.object) as first
    from tenant_table as t
    group by t.relowner
  ),
  -- What the tables are in. Where its owner owns tenant tables too, that is found at them.
  around (kind, object, owner, harm) as (
    select 'schema', pg_catalog.quote_ident(n.nspname), n.nspowner, 'drop the tables in it'
    from pg_catalog.pg_namespace as n
    where n.oid in (select t.relnamespace from tenant_table as t)
      and n.nspowner not in (select owner.oid from owner)
      -- The role of this name is whoever owns the database, which is found once.
      and n.nspowner <> (select r.oid from pg_catalog.pg_roles as r
                         where r.rolname = 'pg_database_owner')
    union all
    select 'database', pg_catalog.quote_ident(d.datname), d.datdba,
           'drop it, and what is in the schemas that the database''s owner owns, as public is'
    from pg_catalog.pg_database as d
    where d.datname = pg_catalog.current_database()
      and d.datdba not in (select owner.oid from owner)
  ),
  fault (object_type, object, problem, remedy, statement) as (
    select 'table', t.object,
           pg_catalog.format('%I acts as the application and owns it: it can switch row security off',
                             o.rolname),
           'let a role own it that cannot log in and that no role of the application is a member of',
           null
    from tenant_table as t
    join runtime on runtime.oid = t.relowner
    join pg_catalog.pg_roles as o on o.oid = t.relowner
    union all
    select a.kind, a.object,
           pg_catalog.format('%I acts as the application and owns it: it can %s', o.rolname, a.harm),
           'let a role own it that cannot log in and that no role of the application is a member of',
           null
    from around as a
    join runtime on runtime.oid = a.owner
    join pg_catalog.pg_roles as o on o.oid = a.owner
    where not o.rolsuper
    union all
    select 'role', pg_catalog.quote_ident(r.rolname),
           pg_catalog.format('acts as the application and can become %I, the owner of %s%s: it can '
                             'switch row security off', o.rolname, owner.first,
             case when owner.tables > 1
               then pg_catalog.format(' and %s more tenant tables', owner.tables - 1) end),
           'end the membership', way.statement
    from way
    join owner on owner.oid = way.target
    join pg_catalog.pg_roles as r on r.oid = way.runtime
    join pg_catalog.pg_roles as o on o.oid = way.target
    where not r.rolsuper
    union all
    select a.kind, a.object,
           pg_catalog.format('%I acts as the application and can become its owner %I: it can %s',
                             r.rolname, o.rolname, a.harm),
           'end the membership', way.statement
    from around as a
    join way on way.target = a.owner
    join pg_catalog.pg_roles as r on r.oid = way.runtime
    join pg_catalog.pg_roles as o on o.oid = way.target
    where not r.rolsuper and not o.rolsuper
  )
select distinct
  'table_owner_reachable' as check_id, 'error' as severity, f.object_type, f.object, f.problem,
  f.remedy, f.statement
from fault as f
order by f.object_type, f.object, f.problem, f.statement

-- Purpose: finds what the application may grant to others: privileges on tenant tables and on schemas,
--          and roles that it administers.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  listed as (
    select t.object, c.relowner, c.relacl as acl, null as column_name
    from tenant_table as t
    join pg_catalog.pg_class as c on c.oid = t.oid
    union all
    select t.object, c.relowner, a.attacl, a.attname
    from tenant_table as t
    join pg_catalog.pg_class as c on c.oid = t.oid
    join pg_catalog.pg_attribute as a
      on a.attrelid = t.oid and a.attacl is not null and not a.attisdropped
  ),
  given as (
    select l.object, h.grantee,
           pg_catalog.string_agg(
             acl.privilege_type || coalesce(' (' || pg_catalog.quote_ident(l.column_name) || ')', ''),
             ', ' order by l.column_name, acl.privilege_type) as privileges
    from listed as l
    cross join lateral pg_catalog.aclexplode(l.acl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.is_grantable and acl.grantee <> l.relowner
    group by l.object, h.grantee
  ),
  runtime as materialized (
    select distinct r.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint)
  ),
  fault (object_type, object, grantee, problem, statement) as (
    select 'table', g.object, g.grantee,
           pg_catalog.format('%s may grant %s on it to any role', g.grantee, g.privileges),
           pg_catalog.format('revoke grant option for %s on table %s from %s cascade;', g.privileges,
                             g.object, g.grantee)
    from given as g
    union all
    select 'schema', pg_catalog.quote_ident(n.nspname), h.grantee,
           pg_catalog.format('%s may grant %s on it to any role', h.grantee,
             pg_catalog.string_agg(acl.privilege_type, ', ' order by acl.privilege_type)),
           pg_catalog.format('revoke grant option for %s on schema %I from %s cascade;',
             pg_catalog.string_agg(acl.privilege_type, ', ' order by acl.privilege_type), n.nspname,
             h.grantee)
    from pg_catalog.pg_namespace as n
    cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.is_grantable and acl.grantee <> n.nspowner
    group by n.nspname, h.grantee
    union all
    -- Who administers a role lets others into it.
    select 'role', pg_catalog.quote_ident(g.rolname), pg_catalog.quote_ident(a.rolname),
           pg_catalog.format('%I acts as the application and may grant it to any role', a.rolname),
           pg_catalog.string_agg(
             pg_catalog.format('revoke admin option for %I from %I granted by %I cascade;', g.rolname,
                               a.rolname, pg_catalog.pg_get_userbyid(m.grantor)), ' ')
    from pg_catalog.pg_auth_members as m
    join runtime on runtime.oid = m.member
    join pg_catalog.pg_roles as a on a.oid = m.member
    join pg_catalog.pg_roles as g on g.oid = m.roleid
    where m.admin_option and not a.rolsuper
    group by g.rolname, a.rolname
  )
select
  'grant_option' as check_id, 'warning' as severity, f.object_type, f.object, f.problem,
  'take the grant option away, and what was granted with it' as remedy, f.statement
from fault as f
order by f.object, f.grantee

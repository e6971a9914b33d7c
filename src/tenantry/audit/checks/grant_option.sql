-- Purpose: finds privileges on tenant tables that the application may grant to others.
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
  )
select
  'grant_option' as check_id, 'warning' as severity, 'table' as object_type, g.object,
  pg_catalog.format('%s may grant %s on it to any role', g.grantee, g.privileges) as problem,
  'take the grant option away, and what was granted with it' as remedy,
  pg_catalog.format('revoke grant option for %s on table %s from %s cascade;', g.privileges, g.object,
                    g.grantee) as statement
from given as g
order by g.object, g.grantee

-- Purpose: finds tenant tables that everybody may read or write: row security is then all that stands
--          before them, for every login of the server.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t.is_partition
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, is_partition boolean)
  ),
  given as (
    select t.object, acl.privilege_type as name
    from tenant_table as t
    join pg_catalog.pg_class as c on c.oid = t.oid
    cross join lateral pg_catalog.aclexplode(c.relacl) as acl
    where acl.grantee = 0
    union
    select t.object, acl.privilege_type
    from tenant_table as t
    join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attacl is not null
    cross join lateral pg_catalog.aclexplode(a.attacl) as acl
    where acl.grantee = 0 and not a.attisdropped
  )
select
  'granted_to_public' as check_id, 'warning' as severity, 'table' as object_type, g.object,
  pg_catalog.format('PUBLIC has %s', pg_catalog.string_agg(g.name, ', ' order by g.name)) as problem,
  'grant to the role of the application alone' as remedy,
  pg_catalog.format('revoke %s on table %s from public;',
    pg_catalog.string_agg(g.name, ', ' order by g.name), g.object) as statement
from given as g
-- Of the others privilege_unguarded and maintain_granted speak.
where g.name in ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
group by g.object
order by g.object

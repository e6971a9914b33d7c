-- Purpose: finds tables without the tenant column that the application may write: what one tenant
--          writes there all the others read.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  app as materialized (
    select r.oid from pg_catalog.pg_roles as r
    where r.rolname = pg_catalog.current_setting('tenantry.app_role')
  ),
  -- What a role has that only a login can become, and not the application's role, role_reachable
  -- names.
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
    where h.oid = 0
       or h.oid in (
         select r.runtime
         from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
           as r (runtime bigint))
       or exists (select from app where pg_catalog.pg_has_role(app.oid, h.oid::oid, 'USAGE'))
  ),
  -- With row security that tells tenants apart a table may be a tenant's by its parent.
  shared as materialized (
    select c.oid, c.relowner, c.relacl, s.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.shared_tables')::json)
      as s (oid bigint, object text)
    join pg_catalog.pg_class as c on c.oid = s.oid::oid
  ),
  listed as (
    select s.object, s.relowner, s.relacl as list from shared as s
    union all
    select s.object, s.relowner, a.attacl
    from shared as s
    join pg_catalog.pg_attribute as a
      on a.attrelid = s.oid and a.attacl is not null and not a.attisdropped
  ),
  given as (
    select l.object, pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from listed as l
    cross join lateral pg_catalog.aclexplode(l.list) as acl
    join holder as h on h.oid = acl.grantee
    -- A trigger changes what others write.
    where acl.privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
      and acl.grantee <> l.relowner
    group by l.object
  )
select
  'shared_table_writable' as check_id, 'warning' as severity, 'table' as object_type, g.object,
  pg_catalog.format('%s may write it, and it has no %I: each tenant changes what all of them read',
    g.grantees, pg_catalog.current_setting('tenantry.tenant_column')) as problem,
  'leave the application SELECT; or give the table the tenant column and row security' as remedy,
  pg_catalog.format('revoke insert, update, delete, truncate, trigger on table %s from %s;',
                    g.object, g.grantees) as statement
from given as g
order by g.object

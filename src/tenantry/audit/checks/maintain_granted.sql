-- Purpose: finds tenant tables on which the application has MAINTAIN (PostgreSQL 17): it locks all
--          tenants out for as long as a VACUUM FULL, CLUSTER or REINDEX takes.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  )
select
  'maintain_granted' as check_id, 'note' as severity, 'table' as object_type, t.object,
  pg_catalog.format('%s has MAINTAIN: VACUUM FULL, CLUSTER, REINDEX and LOCK, which shut out all '
                    'tenants', pg_catalog.string_agg(h.grantee, ', ' order by h.grantee)) as problem,
  'revoke MAINTAIN, and leave maintenance to autovacuum and the owner' as remedy,
  pg_catalog.format('revoke maintain on table %s from %s;', t.object,
    pg_catalog.string_agg(h.grantee, ', ' order by h.grantee)) as statement
from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
  as t (oid bigint, object text)
join pg_catalog.pg_class as c on c.oid = t.oid::oid
cross join lateral pg_catalog.aclexplode(c.relacl) as acl
join holder as h on h.oid = acl.grantee
where acl.privilege_type = 'MAINTAIN' and acl.grantee <> c.relowner
group by t.object
order by t.object

-- Purpose: finds databases in which the application, or everybody, may create temporary tables: they
--          hide real tables from whatever names no schema, and outlive a transaction of a pool.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  )
select
  'database_temporary' as check_id, 'warning' as severity, 'database' as object_type,
  pg_catalog.quote_ident(d.datname) as object,
  pg_catalog.format('%s may create temporary tables, which come before all others in the search path',
    pg_catalog.string_agg(h.grantee, ', ' order by h.grantee)) as problem,
  'revoke TEMPORARY' as remedy,
  pg_catalog.format('revoke temporary on database %I from %s;', d.datname,
    pg_catalog.string_agg(h.grantee, ', ' order by h.grantee)) as statement
from pg_catalog.pg_database as d
-- Without an entry of its own, PUBLIC has CONNECT and TEMPORARY.
cross join lateral pg_catalog.aclexplode(
  coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) as acl
join holder as h on h.oid = acl.grantee
where d.datname = pg_catalog.current_database() and acl.privilege_type = 'TEMPORARY'
  and acl.grantee <> d.datdba
group by d.datname

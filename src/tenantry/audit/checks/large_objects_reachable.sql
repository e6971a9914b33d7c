-- Purpose: finds the functions for large objects open to the application: large objects belong to its
--          role, no policy covers them, and each tenant reads and changes those of all.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  opened as (
    select p.oid::pg_catalog.regprocedure::text as name,
           pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from pg_catalog.pg_proc as p
    cross join lateral pg_catalog.aclexplode(
      coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as acl
    join holder as h on h.oid = acl.grantee
    -- By the code that runs: a name may be any. Those that reach files are server_files_reachable's.
    where p.prolang = (select l.oid from pg_catalog.pg_language as l where l.lanname = 'internal')
      and p.prosrc ~ '^be_lo' and p.prosrc !~ '^be_lo_(import|export)'
    group by p.oid
  )
select
  'large_objects_reachable' as check_id, 'warning' as severity, 'database' as object_type,
  pg_catalog.quote_ident(pg_catalog.current_database()) as object,
  pg_catalog.format('the application may call %s functions for large objects, which no policy covers; %s',
    pg_catalog.count(*),
    case when exists (select from pg_catalog.pg_largeobject_metadata) then 'there are large objects'
      else 'there are none yet' end) as problem,
  'revoke EXECUTE on them, as sql/roles.sql does; keep such values in a bytea column of a tenant table'
    as remedy,
  pg_catalog.string_agg(
    pg_catalog.format('revoke execute on function %s from %s;', o.name, o.grantees), ' '
    order by o.name) as statement
from opened as o
having pg_catalog.count(*) > 0

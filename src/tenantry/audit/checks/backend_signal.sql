-- Purpose: finds functions by which the application ends, or cancels, sessions of other tenants.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  opened as (
    select p.oid, pg_catalog.string_agg(h.grantee, ', ' order by h.grantee) as grantees
    from pg_catalog.pg_proc as p
    cross join lateral pg_catalog.aclexplode(
      coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as acl
    join holder as h on h.oid = acl.grantee
    -- By the code that runs: a name may be any.
    where p.prolang = (select l.oid from pg_catalog.pg_language as l where l.lanname = 'internal')
      and p.prosrc in ('pg_cancel_backend', 'pg_terminate_backend')
      and acl.grantee <> p.proowner
    group by p.oid
  )
select
  'backend_signal' as check_id, 'warning' as severity, 'function' as object_type,
  o.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('%s may execute it: it works on every session of the same role, whichever tenant '
                    'that is for', o.grantees) as problem,
  'revoke EXECUTE; administration has it by pg_signal_backend, once that is granted EXECUTE'
    as remedy,
  pg_catalog.format('revoke execute on function %s from %s;',
    o.oid::pg_catalog.regprocedure, o.grantees) as statement
from opened as o
order by 4

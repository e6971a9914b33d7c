-- Purpose: finds functions that show the application the statements of other sessions, with the values
--          in them: one role runs those of all tenants.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  telling as materialized (
    select p.oid, p.proacl, p.proowner
    from pg_catalog.pg_proc as p
    -- By the code that runs: a name may be any.
    where p.prolang = (select l.oid from pg_catalog.pg_language as l where l.lanname = 'internal')
      and p.prosrc in ('pg_stat_get_activity', 'pg_stat_get_backend_activity')
    union all
    select p.oid, p.proacl, p.proowner
    from pg_catalog.pg_extension as e
    join pg_catalog.pg_depend as d
      on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid
         and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.deptype = 'e'
    join pg_catalog.pg_proc as p on p.oid = d.objid
    where e.extname = 'pg_stat_statements' and p.prosrc ~ '^pg_stat_statements(_\d+_\d+)?$'
  ),
  opened as (
    select f.oid, pg_catalog.string_agg(h.grantee, ', ' order by h.grantee) as grantees
    from telling as f
    cross join lateral pg_catalog.aclexplode(
      coalesce(f.proacl, pg_catalog.acldefault('f', f.proowner))) as acl
    join holder as h on h.oid = acl.grantee
    where acl.grantee <> f.proowner
    group by f.oid
  )
select
  'activity_visible' as check_id, 'warning' as severity, 'function' as object_type,
  o.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('%s may execute it: it shows statements of other sessions of the same role, '
                    'whichever tenant they are for', o.grantees) as problem,
  'revoke EXECUTE; monitoring has it by pg_read_all_stats, once that is granted EXECUTE' as remedy,
  pg_catalog.format('revoke execute on function %s from %s;',
    o.oid::pg_catalog.regprocedure, o.grantees) as statement
from opened as o
order by 4

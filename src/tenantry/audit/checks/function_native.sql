-- Purpose: finds functions in C, or of the server's own code under another name, that belong to no
--          extension and that the application may call: what they do is not in the catalog.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  opened as (
    select p.oid, pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_language as l on l.oid = p.prolang and l.lanname in ('internal', 'c')
    cross join lateral pg_catalog.aclexplode(
      coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as acl
    join holder as h on h.oid = acl.grantee
    -- The first id that is not the server's own. Of an aggregate the code is in its functions.
    where p.oid >= 16384 and p.prokind <> 'a'
      and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass and d.objid = p.oid
          and d.deptype = 'e')
    group by p.oid
  )
select
  'function_native' as check_id, 'warning' as severity, 'function' as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('%s may execute it: it runs %s%s, and belongs to no extension', o.grantees, p.prosrc,
                    case when l.lanname = 'c' then ' of ' || p.probin else ' of the server''s code' end)
    as problem,
  'revoke EXECUTE, or let an extension that somebody answers for bring it' as remedy,
  pg_catalog.format('revoke execute on function %s from %s;', p.oid::pg_catalog.regprocedure,
                    o.grantees) as statement
from opened as o
join pg_catalog.pg_proc as p on p.oid = o.oid
join pg_catalog.pg_language as l on l.oid = p.prolang
order by 4

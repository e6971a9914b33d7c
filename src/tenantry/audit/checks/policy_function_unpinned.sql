-- Purpose: finds functions in the policies of tenant tables that look up names where the session's
--          search_path says, so that the application can put something else in their place.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  used as (
    select f.oid::oid as oid, pg_catalog.string_agg(distinct f.used_by collate "C", ', ') as names
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policy_functions')::json)
      as f (oid bigint, used_by text, contained boolean)
    where not f.contained
    group by f.oid
  )
select
  'policy_function_unpinned' as check_id, 'warning' as severity, 'function' as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('it has no search_path of its own with pg_temp last: who asks decides what the '
                    'names in it mean; used by %s', used.names) as problem,
  'write its body as BEGIN ATOMIC or RETURN, which finds its names once, or set its search_path'
    as remedy,
  null as statement
from used
join pg_catalog.pg_proc as p on p.oid = used.oid
join pg_catalog.pg_language as l on l.oid = p.prolang
where p.prosqlbody is null and l.lanname not in ('internal', 'c')
  and not exists (
    select from pg_catalog.unnest(p.proconfig) as setting
    where setting ~ '^search_path=(""|(([^",]+|"([^"]|"")*"), *)*("pg_temp"|pg_temp))$')
order by 4

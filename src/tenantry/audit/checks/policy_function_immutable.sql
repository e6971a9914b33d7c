-- Purpose: finds functions in the policies of tenant tables that are marked IMMUTABLE and are not: what
--          they returned for one tenant stays in the plan and is used for the next.
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
  'policy_function_immutable' as check_id, 'error' as severity, 'function' as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('it is IMMUTABLE and %s: a plan keeps what it returned for another tenant; used by '
                    '%s',
    case when p.pronargs = 0 then 'takes no arguments, so that it can only return a constant or read '
                                  'what changes'
      else 'reads what changes' end, used.names) as problem,
  'mark it STABLE' as remedy,
  pg_catalog.format('alter function %s stable;', p.oid::pg_catalog.regprocedure) as statement
from used
join pg_catalog.pg_proc as p on p.oid = used.oid
cross join lateral (
  select case when p.prosqlbody is not null then pg_catalog.pg_get_functiondef(p.oid)
    else p.prosrc end as text
) as body
where p.provolatile = 'i'
  and (p.pronargs = 0
       or body.text ~* '\m(current_setting|current_user|session_user|current_role|from|perform)\M')
order by 4

-- Purpose: finds SECURITY DEFINER functions and procedures that the application sets off and that look
--          up names where the caller says: a temporary table then takes the place of the real one.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  reached as materialized (
    select d.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.definers')::json)
      as d (oid bigint, way text)
    where d.way is not null
  ),
  -- Where a policy makes an exception for the authenticator, authenticator_unconfined looks at its
  -- functions.
  elsewhere as materialized (
    select r.oid
    from pg_catalog.pg_roles as r
    where r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
      and exists (
        select
        from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
          as p (excepted boolean, for_authenticator boolean)
        where p.excepted or p.for_authenticator)
  )
select
  'definer_function_search_path' as check_id, 'error' as severity,
  case p.prokind when 'p' then 'procedure' else 'function' end as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('it runs as %I and %s: the caller decides what the names in it mean', o.rolname,
    case when pinned.path is null then 'has no search_path of its own'
      else 'its search_path does not end in pg_temp, which is searched first where it is not named'
    end) as problem,
  'set its search_path, with pg_temp last' as remedy,
  case
    -- A body that was checked at its creation names schemas already; of another, what it has to find
    -- is for a person to say.
    when p.prosqlbody is not null
      then pg_catalog.format('alter routine %s set search_path = pg_catalog, pg_temp;',
                             p.oid::pg_catalog.regprocedure)
    -- One name with a comma in it looks like two, and was hardly meant.
    when pinned.path !~ '"[^"]*,[^"]*"'
      then pg_catalog.format('alter routine %s set search_path = %s;',
             p.oid::pg_catalog.regprocedure,
             pg_catalog.regexp_replace(pinned.path, '"?\mpg_temp\M"?, *', '', 'g')
               || case when pinned.path ~ '\mpg_temp"?$' then '' else ', pg_temp' end)
  end as statement
from pg_catalog.pg_proc as p
join pg_catalog.pg_roles as o on o.oid = p.proowner
left join lateral (
  select pg_catalog.substr(setting, 13) as path
  from pg_catalog.unnest(p.proconfig) as setting
  where setting ~ '^search_path='
) as pinned on true
where p.prosecdef
  and p.proowner not in (select elsewhere.oid from elsewhere)
  and coalesce(pinned.path !~ '^(""|(([^",]+|"([^"]|"")*"), *)*("pg_temp"|pg_temp))$'
               or pinned.path ~ 'pg_temp.*pg_temp', true)
  and case
    when p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype then exists (
      select
      from pg_catalog.pg_trigger as g cross join holder
      where g.tgfoid = p.oid and not g.tgisinternal and g.tgenabled in ('O', 'A')
        and (pg_catalog.has_table_privilege(holder.oid, g.tgrelid, 'INSERT, UPDATE, DELETE')
             or pg_catalog.has_any_column_privilege(holder.oid, g.tgrelid, 'INSERT, UPDATE')))
    when p.prorettype = 'pg_catalog.event_trigger'::pg_catalog.regtype then exists (
      select from pg_catalog.pg_event_trigger as e
      where e.evtfoid = p.oid and e.evtenabled in ('O', 'A'))
    else p.oid in (select reached.oid from reached) end
order by 4

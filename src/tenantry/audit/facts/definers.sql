-- Purpose: finds the SECURITY DEFINER functions and procedures, what their owners may do that the
--          application may not, and by which way the application sets them off; leaves them in the
--          setting tenantry.definers, a JSON list of {oid, way, above, lends, strays}. `way` is null
--          where there is none, `above` where row security binds the owner and nothing else is open
--          to him; `lends` says what the function's text may do with rights that only its owner has;
--          `strays` in what a function of the authenticator is not the one that looks up a token.
-- Run by:  any role, in the audit's transaction, after facts/holders.sql and facts/policies.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  definer as materialized (
    select p.oid, p.proname, p.proowner, p.prolang, p.pronamespace,
           p.prorettype in ('pg_catalog.trigger'::pg_catalog.regtype,
                            'pg_catalog.event_trigger'::pg_catalog.regtype) as is_trigger,
           -- Without comments and literals.
           pg_catalog.regexp_replace(
             case when p.prosqlbody is not null then pg_catalog.pg_get_functiondef(p.oid)
               else p.prosrc end,
             '--[^\n]*|/\*.*?\*/|''(?:[^'']|'''')*''', ' ', 'g') as text
    from pg_catalog.pg_proc as p
    where p.prosecdef
  ),
  -- Where the server calls a function without asking for EXECUTE.
  pointed (oid, way) as materialized (
    select f.oid, pg_catalog.format('the aggregate %s calls it', a.aggfnoid::pg_catalog.regprocedure)
    from pg_catalog.pg_aggregate as a
    cross join lateral pg_catalog.unnest(array[
      a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
      a.aggminvtransfn, a.aggmfinalfn]::oid[]) as f (oid)
    where f.oid in (select definer.oid from definer)
      and exists (select from holder
                  where pg_catalog.has_function_privilege(holder.oid, a.aggfnoid::oid, 'EXECUTE'))
    union all
    select a.amproc::oid, 'an operator class has it'
    from pg_catalog.pg_amproc as a
    where a.amproc::oid in (select definer.oid from definer)
    union all
    select f.oid, pg_catalog.format('the operator %s has it', o.oid::pg_catalog.regoperator)
    from pg_catalog.pg_operator as o
    cross join lateral pg_catalog.unnest(array[o.oprcode, o.oprrest, o.oprjoin]::oid[]) as f (oid)
    where f.oid in (select definer.oid from definer)
    union all
    select c.castfunc, pg_catalog.format('a cast from %s has it',
                                         pg_catalog.format_type(c.castsource, null))
    from pg_catalog.pg_cast as c
    where c.castfunc in (select definer.oid from definer)
  ),
  -- EXECUTE is enough: a view, a default or a function whose body was checked calls what its user
  -- could not name.
  direct as materialized (
    select d.oid, 'may execute it' as way
    from definer as d
    where not d.is_trigger
      and exists (select from holder
                  where pg_catalog.has_function_privilege(holder.oid, d.oid, 'EXECUTE'))
    union all
    select p.oid, pg_catalog.min(pg_catalog.format('sets it off (%s)', p.way))
    from pointed as p
    where not exists (select from holder
                      where pg_catalog.has_function_privilege(holder.oid, p.oid, 'EXECUTE'))
    group by p.oid
  ),
  -- Functions by which the server shows its files, whatever they are called.
  file_function as materialized (
    select p.oid from pg_catalog.pg_proc as p
    where p.prolang = (select l.oid from pg_catalog.pg_language as l where l.lanname = 'internal')
      and (p.prosrc like 'pg\_read\_%' and p.prosrc ~ '^pg_read_(file_|binary_file)'
           or p.prosrc in ('be_lo_import', 'be_lo_import_with_oid', 'be_lo_export'))
      -- What the application may do itself its own checks name.
      and not exists (select from holder
                      where pg_catalog.has_function_privilege(holder.oid, p.oid, 'EXECUTE'))
  ),
  predefined as materialized (
    select r.oid, r.rolname,
           r.rolname in ('pg_execute_server_program', 'pg_read_server_files',
                         'pg_write_server_files', 'pg_read_all_data', 'pg_write_all_data') as is_wide
    from pg_catalog.pg_roles as r
    where r.rolname ~ '^pg_' and r.rolname <> 'pg_database_owner'
  ),
  secret as materialized (
    select c.oid, c.relname
    from pg_catalog.pg_class as c
    where c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
      and c.relname in ('pg_statistic', 'pg_statistic_ext_data', 'pg_largeobject', 'pg_authid',
                        'pg_shadow', 'pg_user_mapping')
      and not exists (select from holder
                      where pg_catalog.has_any_column_privilege(holder.oid, c.oid, 'SELECT'))
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.name, t.object, t.exposed, c.relowner, c.relrowsecurity,
           c.relforcerowsecurity
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, name text, object text, exposed boolean)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
    where exists (select from definer)
  ),
  owner as materialized (
    select r.oid, r.rolname, r.is_table_owner, lesser.rolname as lesser,
           case
             when r.rolsuper then 'is a superuser'
             when r.rolbypassrls then 'has BYPASSRLS'
             when r.rolreplication then 'has REPLICATION'
             when r.rolcreaterole then 'has CREATEROLE'
             when wide.rolname is not null then 'is a member of ' || wide.rolname
             when shown.relname is not null then 'may read ' || shown.relname
             when exists (
                 select from file_function as f
                 where pg_catalog.has_function_privilege(r.oid, f.oid, 'EXECUTE'))
               then 'may read or write the server''s files' end as above
    from (
      select o.*, exists (select from tenant_table as t
                          where pg_catalog.pg_has_role(o.oid, t.relowner, 'USAGE')) as is_table_owner
      from pg_catalog.pg_roles as o
      where o.oid in (select definer.proowner from definer)
    ) as r
    left join lateral (
      select p.rolname from predefined as p
      where p.is_wide and pg_catalog.pg_has_role(r.oid, p.oid, 'USAGE')
      order by p.rolname limit 1
    ) as wide on true
    left join lateral (
      select p.rolname from predefined as p
      where not p.is_wide and pg_catalog.pg_has_role(r.oid, p.oid, 'USAGE')
      order by p.rolname limit 1
    ) as lesser on true
    left join lateral (
      select s.relname from secret as s
      where pg_catalog.has_any_column_privilege(r.oid, s.oid, 'SELECT')
        and (s.relname not in ('pg_shadow', 'pg_user_mapping')
             or pg_catalog.has_table_privilege(r.oid, s.oid, 'SELECT'))
      order by s.relname limit 1
    ) as shown on true
  ),
  -- Called by a function that the application may call, in the rights of that one's owner.
  through as materialized (
    select inner_one.oid,
           pg_catalog.min(pg_catalog.format('sets it off by %s',
             outer_one.oid::pg_catalog.regprocedure)) as way
    from definer as inner_one
    join owner on owner.oid = inner_one.proowner and owner.above is not null
    join definer as outer_one
      on outer_one.oid <> inner_one.oid
      and outer_one.oid in (select direct.oid from direct)
      and outer_one.text ~* ('\m' || pg_catalog.regexp_replace(inner_one.proname, '\W', '.', 'g')
                             || '\M')
    where not inner_one.is_trigger
      and inner_one.oid not in (select direct.oid from direct)
      and pg_catalog.has_function_privilege(outer_one.proowner, inner_one.oid, 'EXECUTE')
    group by inner_one.oid
  ),
  -- Tables that no policy holds, and that are closed to the application: tenants' own, as partitions
  -- are, and those of brokers and of results.
  unheld as materialized (
    select t.oid, t.name, t.object, t.relowner, t.relrowsecurity, t.relforcerowsecurity
    from tenant_table as t
    where not t.exposed and not (t.relrowsecurity and t.relforcerowsecurity)
    union all
    select c.oid, c.relname, pg_catalog.format('%I.%I', n.nspname, c.relname), c.relowner,
           c.relrowsecurity, c.relforcerowsecurity
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p')
      and c.relname in ('kombu_message', 'kombu_queue', 'celery_taskmeta', 'celery_tasksetmeta')
      and exists (select from definer)
      and not exists (
        select from holder
        where pg_catalog.has_table_privilege(holder.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE'))
  ),
  -- The functions of the authenticator, where a policy makes an exception for it. Of one whose text is
  -- not the layer's own nobody can tell from the catalog whose tokens it returns; that it compares
  -- nothing with what it is given can be told.
  lookup as materialized (
    select d.oid, look.is_known,
           case
             when look.is_known then null
             when d.is_trigger then 'is a trigger''s, and reads the tokens of all tenants'
             when pg_catalog.count(*) over () > 1 then 'is not the one function that looks up a token'
             when not look.compares then 'compares no token with what it is given' end as strays
    from definer as d
    join pg_catalog.pg_roles as r
      on r.oid = d.proowner
      and r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
    join pg_catalog.pg_proc as p on p.oid = d.oid
    join pg_catalog.pg_language as l on l.oid = p.prolang
    cross join lateral (
      select l.lanname = 'sql' and p.prosqlbody is null and p.pronargs = 1
             and not exists (
               select from pg_catalog.unnest(p.proconfig) as setting
               where setting ~ '^search_path=' and setting !~ '^search_path=(""$|pg_catalog,)')
             and exists (
               select
               from pg_catalog.json_to_recordset(
                 pg_catalog.current_setting('tenantry.tables')::json)
                 as t (object text, "column" text, is_token boolean)
               where t.is_token
                 and pg_catalog.btrim(pg_catalog.regexp_replace(p.prosrc, '\s+', ' ', 'g'))
                   = pg_catalog.format(
                       'select t.%2$I, t.user_id from %1$s as t where t.%3$I = %4$I.%3$I '
                       'and t.revoked_at is null '
                       'and (t.expires_at is null or t.expires_at > statement_timestamp()) '
                       'and not exists ( select from %1$s as other where other.%3$I = t.%3$I '
                       'and (other.%2$I, other.id) <> (t.%2$I, t.id) )',
                       t.object, t."column", p.proargnames[1], p.proname)) as is_known,
             d.text ~ '=\s*\$\d|\$\d\s*=' or exists (
               select
               from pg_catalog.unnest(p.proargnames[1:p.pronargs]) as argument (name)
               where argument.name <> ''
                 and d.text ~* ('=\s*(\w+\.)?"?' || argument.name || '\M|\m' || argument.name
                                || '"?\s*=')) as compares
    ) as look
    where exists (
      select
      from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
        as e (excepted boolean, for_authenticator boolean)
      where e.excepted or e.for_authenticator)
  ),
  lent as materialized (
    select d.oid,
           case
             when lookup.oid is not null then
               case when not lookup.is_known and lookup.strays is null
                 then 'whose tokens it returns is up to its text, which nobody has compared with the '
                      'look-up that is known' end
             when owner.lesser is not null
               then pg_catalog.format('its owner %I is a member of %I', owner.rolname, owner.lesser)
             when named.object is not null
               then pg_catalog.format('its text names %s, which no policy holds', named.object)
             when not owner.is_table_owner then null
             when l.lanname not in ('sql', 'plpgsql')
               then pg_catalog.format('its owner %I owns tenant tables, and it is written in %s',
                                      owner.rolname, l.lanname)
             when d.text ~* ('\m(execute|truncate|alter|drop|grant|disable|copy|query_to_xml\w*|'
                             'ts_stat|ts_rewrite|dblink\w*)\M')
               then pg_catalog.format('its owner %I owns tenant tables, and its text holds commands '
                                      'that policies do not bind, or makes them', owner.rolname)
           end as lends
    from definer as d
    join direct on direct.oid = d.oid
    join owner on owner.oid = d.proowner and owner.above is null
    join pg_catalog.pg_language as l on l.oid = d.prolang
    left join lookup on lookup.oid = d.oid
    left join lateral (
      select pg_catalog.min(u.object) as object
      from pg_catalog.regexp_split_to_table(d.text, '[^[:alnum:]_$]+') as word
      join unheld as u on u.name = word
      where pg_catalog.has_any_column_privilege(d.proowner, u.oid, 'SELECT, INSERT, UPDATE')
        and not (u.relrowsecurity and (u.relforcerowsecurity
                 or not pg_catalog.pg_has_role(d.proowner, u.relowner, 'USAGE')))
    ) as named on true
  )
select
where pg_catalog.set_config('tenantry.definers',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', d.oid::bigint,
            'way', coalesce(direct.way, through.way),
            'above', owner.above,
            'lends', lent.lends,
            'strays', lookup.strays)
          order by d.oid)::text, '[]')
   from definer as d
   join owner on owner.oid = d.proowner
   left join direct on direct.oid = d.oid
   left join through on through.oid = d.oid
   left join lent on lent.oid = d.oid
   left join lookup on lookup.oid = d.oid),
  true) is null

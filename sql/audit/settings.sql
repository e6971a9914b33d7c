-- Purpose: judge the settings that carry the tenant; leaves one JSON object for each in the setting
--          tenantry.settings. Needs tenantry.reach.
-- Run by:  any role, as a part of audit.sql, which begins the transaction and sets the parameters.
-- Twice:   yes, it reads only.

-- Settings. RESET shows the value a transaction begins with where nobody set a tenant, wherever that
-- is stored; the rollback at the end puts back what the session had.
select
  pg_catalog.set_config('tenantry.organization_now',
    coalesce(pg_catalog.quote_literal(pg_catalog.current_setting(:'organization_setting', true)),
             'not defined'), true),
  pg_catalog.set_config('tenantry.user_now',
    coalesce(pg_catalog.quote_literal(pg_catalog.current_setting(:'user_setting', true)),
             'not defined'), true)
\gset tenantry_ignored_
reset :"organization_setting";
reset :"user_setting";

with
  runtime as materialized (
    select distinct r.oid, r.rolname, r.rolsuper
    from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.reach')::jsonb)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
  ),
  setting (position, name, now) as (
    values
      (1, pg_catalog.current_setting('tenantry.organization_setting'),
          pg_catalog.current_setting('tenantry.organization_now')),
      (2, pg_catalog.current_setting('tenantry.user_setting'),
          pg_catalog.current_setting('tenantry.user_now'))
  ),
  stored as materialized (
    select setting.name,
           pg_catalog.concat_ws(', ',
             case when s.setdatabase <> 0 then 'this database' end,
             coalesce('role ' || r.rolname, case when s.setdatabase = 0 then 'all roles' end))
             as scope,
           pg_catalog.substr(entry, pg_catalog.strpos(entry, '=') + 1) as value
    from setting
    cross join pg_catalog.pg_db_role_setting as s
    cross join lateral pg_catalog.unnest(s.setconfig) as entry
    left join pg_catalog.pg_roles as r on r.oid = s.setrole
    where pg_catalog.lower(pg_catalog.split_part(entry, '=', 1)) = pg_catalog.lower(setting.name)
      and (s.setdatabase = 0 or s.setdatabase = (
             select d.oid from pg_catalog.pg_database as d
             where d.datname = pg_catalog.current_database()))
      and (s.setrole = 0 or s.setrole in (select runtime.oid from runtime))
  ),
  judged as (
    select setting.position, setting.name, setting.now,
           (select pg_catalog.string_agg(
                     pg_catalog.format('%L for %s', stored.value, stored.scope), E'\n'
                     order by stored.scope)
            from stored where stored.name = setting.name) as stored,
           array(select pg_catalog.format('the default for %s is %L, so that a forgotten tenant is '
                                          'silently this one', stored.scope, stored.value)
                 from stored where stored.name = setting.name and stored.value <> ''
                 order by stored.scope)
           || case when pg_catalog.current_setting(setting.name, true) <> ''
                     and not exists (select from stored
                                     where stored.name = setting.name and stored.value <> '')
                then array[pg_catalog.format('this session begins with %L: the server''s '
                  'configuration, or the options of this connection, set it',
                  pg_catalog.current_setting(setting.name, true))]
                else '{}' end
           || array(select pg_catalog.format('%s has SET on the parameter and can store a default',
                                             runtime.rolname)
                    from runtime
                    where not runtime.rolsuper
                      and pg_catalog.has_parameter_privilege(runtime.oid, setting.name, 'SET')
                    order by runtime.rolname) as faults
    from setting
  )
select pg_catalog.set_config('tenantry.settings',
  pg_catalog.jsonb_agg(pg_catalog.to_jsonb(judged) order by judged.position)::text, true)
from judged
\gset tenantry_ignored_

-- Purpose: finds a tenant that a session has without anybody having set it: a default stored for a
--          role, a function, the database or the server; and who could store one.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.oid, r.rolname, r.rolsuper
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
  ),
  setting as materialized (
    -- Part by part: current_user alone is a keyword.
    select s.name, s.starts,
           (select pg_catalog.string_agg(pg_catalog.quote_ident(part.name), '.'
                     order by part.position)
            from pg_catalog.string_to_table(s.name, '.') with ordinality as part (name, position))
             as quoted
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.settings')::json)
      as s (name text, starts text)
  ),
  stored as materialized (
    select setting.name, setting.quoted, r.rolname, d.datname,
           pg_catalog.substr(entry, pg_catalog.strpos(entry, '=') + 1) as value
    from setting
    cross join pg_catalog.pg_db_role_setting as s
    cross join lateral pg_catalog.unnest(s.setconfig) as entry
    left join pg_catalog.pg_roles as r on r.oid = s.setrole
    left join pg_catalog.pg_database as d on d.oid = s.setdatabase
    where pg_catalog.lower(pg_catalog.split_part(entry, '=', 1)) = pg_catalog.lower(setting.name)
      and (s.setdatabase = 0 or d.datname = pg_catalog.current_database())
      and (s.setrole = 0 or s.setrole in (select runtime.oid from runtime))
  ),
  -- Who calls such a function, or sets its trigger off, is the tenant that it says.
  pinned as materialized (
    select setting.name, setting.quoted, p.oid,
           pg_catalog.substr(entry, pg_catalog.strpos(entry, '=') + 1) as value
    from setting
    cross join pg_catalog.pg_proc as p
    cross join lateral pg_catalog.unnest(p.proconfig) as entry
    where p.proconfig is not null
      and pg_catalog.lower(pg_catalog.split_part(entry, '=', 1)) = pg_catalog.lower(setting.name)
      and (p.prorettype = 'pg_catalog.trigger'::pg_catalog.regtype
           or exists (
             select from runtime
             where pg_catalog.has_function_privilege(runtime.oid, p.oid, 'EXECUTE')))
  ),
  fault (name, problem, remedy, statement) as (
    select s.name,
           pg_catalog.format('the default for %s is %L, so that a forgotten tenant is silently this one',
             pg_catalog.concat_ws(' in ',
               case when s.rolname is not null then pg_catalog.format('role %I', s.rolname)
                 when s.datname is null then 'all roles' end,
               case when s.datname is not null then 'this database' end), s.value),
           'store '''' in its place',
           pg_catalog.format('alter %s set %s = '''';',
             case
               when s.rolname is null and s.datname is null then 'role all'
               when s.rolname is null then pg_catalog.format('database %I', s.datname)
               when s.datname is null then pg_catalog.format('role %I', s.rolname)
               else pg_catalog.format('role %I in database %I', s.rolname, s.datname) end, s.quoted)
    from stored as s
    where s.value <> ''
    union all
    select setting.name,
           pg_catalog.format('this session begins with %L: the server''s configuration, or the '
                             'options of this connection, set it', setting.starts),
           'remove it there', null
    from setting
    where setting.starts <> ''
      and not exists (select from stored where stored.name = setting.name and stored.value <> '')
    union all
    select pinned.name,
           pg_catalog.format('%s runs with %L, whichever tenant is set',
                             pinned.oid::pg_catalog.regprocedure, pinned.value),
           'take the setting from the function',
           pg_catalog.format('alter routine %s reset %s;', pinned.oid::pg_catalog.regprocedure,
                             pinned.quoted)
    from pinned
    where pinned.value <> ''
    union all
    select setting.name,
           pg_catalog.format('the event trigger %I may set it at each login: the text of its function '
                             '%s sets something', e.evtname, p.oid::pg_catalog.regprocedure),
           'disable it, or let it set nothing of the tenant''s',
           pg_catalog.format('alter event trigger %I disable;', e.evtname)
    from setting
    cross join pg_catalog.pg_event_trigger as e
    join pg_catalog.pg_proc as p on p.oid = e.evtfoid
    -- From PostgreSQL 17 on there are such.
    where e.evtevent = 'login' and e.evtenabled in ('O', 'A')
      and setting.name = pg_catalog.current_setting('tenantry.organization_setting')
      and p.prosrc ~* '\m(set_config|set|execute|perform|call)\M'
    union all
    select setting.name,
           pg_catalog.format('%I acts as the application, has SET on the parameter and can store a '
                             'default', runtime.rolname),
           'revoke SET on the parameter',
           case when exists (
               select from pg_catalog.pg_parameter_acl as p
               cross join lateral pg_catalog.aclexplode(p.paracl) as acl
               where p.parname = pg_catalog.lower(setting.name) and acl.grantee = runtime.oid)
             then pg_catalog.format('revoke set on parameter %s from %I;',
                                    setting.quoted, runtime.rolname) end
    from setting cross join runtime
    where not runtime.rolsuper
      and pg_catalog.has_parameter_privilege(runtime.oid, setting.name, 'SET')
  )
select
  'setting_default' as check_id, 'error' as severity, 'setting' as object_type, f.name as object,
  f.problem, f.remedy, f.statement
from fault as f
order by f.name, f.problem

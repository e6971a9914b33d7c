-- Purpose: finds what would make the one exception to the wall, the role that looks up a token before
--          there is a tenant, more than it says it is.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  authenticator as materialized (
    select r.* from pg_catalog.pg_roles as r
    where r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
  ),
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t.is_token
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, is_token boolean)
  ),
  -- The exception matters where a policy makes it.
  exception as materialized (
    select p."table"::oid as oid, pg_catalog.count(*) filter (where p.for_authenticator) as policies
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p ("table" bigint, excepted boolean, for_authenticator boolean)
    where p.excepted or p.for_authenticator
    group by p."table"
  ),
  attribute as (
    select pg_catalog.concat_ws(', ',
             case when r.rolcanlogin then 'can log in' end,
             case when r.rolsuper then 'is a superuser' end,
             case when r.rolbypassrls then 'has BYPASSRLS' end,
             case when r.rolcreaterole then 'has CREATEROLE' end,
             case when r.rolcreatedb then 'has CREATEDB' end,
             case when r.rolreplication then 'has REPLICATION' end) as problem,
           pg_catalog.concat_ws(' ',
             case when r.rolcanlogin then 'nologin' end,
             case when r.rolsuper then 'nosuperuser' end,
             case when r.rolbypassrls then 'nobypassrls' end,
             case when r.rolcreaterole then 'nocreaterole' end,
             case when r.rolcreatedb then 'nocreatedb' end,
             case when r.rolreplication then 'noreplication' end) as without
    from authenticator as r
  ),
  fault (object_type, object, problem, remedy, statement) as (
    select 'role', pg_catalog.quote_ident(r.rolname), attribute.problem,
           'take the attribute away',
           pg_catalog.format('alter role %I %s;', r.rolname, attribute.without)
    from authenticator as r cross join attribute
    where attribute.problem <> ''
    union all
    select 'role', pg_catalog.quote_ident(runtime.rolname),
           pg_catalog.format('acts as the application and can become %I, which sees the tokens of '
                             'all tenants', r.rolname),
           'end the membership',
           case when exists (select from pg_catalog.pg_auth_members as m
                             where m.roleid = r.oid and m.member = runtime.oid)
             then pg_catalog.format('revoke %I from %I;', r.rolname, runtime.rolname) end
    from authenticator as r
    join reach on reach.target = r.oid
    join pg_catalog.pg_roles as runtime on runtime.oid = reach.runtime
    union all
    select 'table', t.object,
           pg_catalog.format(case when t.is_token then '%I may do more than SELECT on it'
                                  else '%I may use it, and not the token table alone' end,
                             r.rolname),
           'leave the role SELECT on the token table and nothing else',
           case when t.is_token
             then pg_catalog.format('revoke insert, update, delete, truncate, references, trigger on '
                                    'table %s from %I;', t.object, r.rolname)
             else pg_catalog.format('revoke all on table %s from %I;', t.object, r.rolname) end
    from authenticator as r cross join tenant_table as t
    where not r.rolsuper
      and (pg_catalog.has_table_privilege(r.oid, t.oid, 'DELETE, TRUNCATE, TRIGGER')
           or pg_catalog.has_any_column_privilege(r.oid, t.oid, 'INSERT, UPDATE, REFERENCES')
           or not t.is_token and pg_catalog.has_any_column_privilege(r.oid, t.oid, 'SELECT'))
    union all
    select 'function', p.oid::pg_catalog.regprocedure::text,
           pg_catalog.format('runs as %I and has no pinned search_path with pg_temp last',
                             r.rolname),
           'pin the search_path of the function',
           -- With nothing on it the function has to name schemas, which a body checked at its
           -- creation does, and another has to be looked at.
           case when p.prosqlbody is not null
             then pg_catalog.format('alter function %s set search_path = pg_catalog, pg_temp;',
                                    p.oid::pg_catalog.regprocedure) end
    from authenticator as r
    join pg_catalog.pg_proc as p on p.proowner = r.oid and p.prosecdef
    where not exists (
      select from pg_catalog.unnest(p.proconfig) as setting
      where setting ~ '^search_path=(""|(([^",]+|"([^"]|"")*"), *)*("pg_temp"|pg_temp))$')
    union all
    select 'function', d.oid::oid::pg_catalog.regprocedure::text,
           pg_catalog.format('runs as %I and %s', r.rolname, d.strays),
           'drop it, or write it as the function that looks up one token by its hash', null
    from authenticator as r
    cross join pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.definers')::json)
      as d (oid bigint, strays text)
    where d.strays is not null
    union all
    select 'table', t.object, 'more than one policy lets the authenticator read', 'drop all but one',
           null
    from exception as e join tenant_table as t on t.oid = e.oid
    where e.policies > 1
  )
select
  'authenticator_unconfined' as check_id, 'error' as severity, f.object_type, f.object, f.problem,
  f.remedy, f.statement
from fault as f
where exists (select from exception)
order by f.object_type, f.object, f.problem

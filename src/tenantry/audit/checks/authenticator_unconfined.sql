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
  -- By which membership of its own; by way of another role of the application it is that one's.
  membership as materialized (
    select m.runtime::oid as runtime, m.role::oid as role, m.target::oid as target, m.statement
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.memberships')::json)
      as m (runtime bigint, role bigint, target bigint, statement text)
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
  -- What is its own or inherited. What PUBLIC has granted_to_public and privilege_unguarded name.
  held as (
    select t.object, t.is_token, acl.grantee, listed.column_name, acl.privilege_type
    from tenant_table as t
    join pg_catalog.pg_class as c on c.oid = t.oid
    cross join authenticator as r
    cross join lateral (
      select coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) as acl, null as column_name
      union all
      select a.attacl, a.attname from pg_catalog.pg_attribute as a
      where a.attrelid = t.oid and a.attacl is not null and not a.attisdropped
    ) as listed
    cross join lateral pg_catalog.aclexplode(listed.acl) as acl
    where not r.rolsuper and acl.grantee <> 0
      and pg_catalog.pg_has_role(r.oid, acl.grantee, 'USAGE')
      and acl.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES',
                                 'TRIGGER')
      and not (t.is_token and acl.privilege_type = 'SELECT')
  ),
  privilege as (
    select given.object, given.is_token,
           pg_catalog.string_agg(given.privileges, ', ' order by given.privileges) as privileges,
           -- What a group has others may need: to leave the group is for a person to decide.
           case when pg_catalog.bool_and(g.oid = r.oid)
             then pg_catalog.min(pg_catalog.format('revoke %s on table %s from %I;',
                                                   given.privileges, given.object, g.rolname))
             end as statement
    from (
      select h.object, h.is_token, h.grantee,
             pg_catalog.string_agg(distinct
               h.privilege_type || coalesce(' (' || pg_catalog.quote_ident(h.column_name) || ')', ''),
               ', ') as privileges
      from held as h
      group by h.object, h.is_token, h.grantee
    ) as given
    join pg_catalog.pg_roles as g on g.oid = given.grantee
    cross join authenticator as r
    group by given.object, given.is_token
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
           case when m.role = m.target then m.statement end
    from authenticator as r
    join membership as m on m.target = r.oid
    join pg_catalog.pg_roles as runtime on runtime.oid = m.runtime
    where not runtime.rolsuper
      and (m.role = m.target
           or not exists (select from membership as direct
                          where direct.runtime = m.runtime and direct.role = m.target))
    union all
    select 'role', pg_catalog.quote_ident(runtime.rolname),
           pg_catalog.format('acts as the application and is %I, which sees the tokens of all tenants',
                             r.rolname),
           'let the application have a role of its own', null
    from authenticator as r
    join reach on reach.runtime = r.oid and reach.target = r.oid
    join pg_catalog.pg_roles as runtime on runtime.oid = reach.runtime
    union all
    select 'table', p.object,
           pg_catalog.format(case when p.is_token then '%I may do more than SELECT on it: %s'
                                  else '%I may use it, and not the token table alone: %s' end,
                             r.rolname, p.privileges),
           'leave the role SELECT on the token table and nothing else', p.statement
    from authenticator as r cross join privilege as p
    union all
    select 'role', pg_catalog.quote_ident(r.rolname),
           pg_catalog.format('is a member of %I, which may use all tables', g.rolname),
           'end the membership', null
    from authenticator as r
    join pg_catalog.pg_roles as g on g.rolname in ('pg_read_all_data', 'pg_write_all_data')
    where not r.rolsuper and pg_catalog.pg_has_role(r.oid, g.oid, 'USAGE')
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

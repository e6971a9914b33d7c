-- Purpose: make the roles, grants and settings that keep tenants apart in the database psql is
--          connected to, for a DBA who does not run our migrations. Before or after them.
-- Run by:  a superuser, once per database.
-- Twice:   yes. A second run finds everything in place and changes nothing.
--
--   psql -X -d DATABASE -f sql/roles.sql [-v app_login=NAME ...]      (variables: sql/README.md)
--
-- One transaction: on any error nothing is changed and psql exits with status 3. Passwords are never
-- arguments: they come from the environment (TENANTRY_APP_PASSWORD, TENANTRY_MIGRATOR_PASSWORD,
-- TENANTRY_MAINTENANCE_PASSWORD) or are set afterwards with \password.

\set tenantry_quiet :QUIET
\set QUIET on
\set ON_ERROR_STOP on
\set SHOW_CONTEXT never

\if :{?app_login}
\else
  \set app_login tenantry_login
\endif
\if :{?migrator_login}
\else
  \set migrator_login tenantry_migrator
\endif
\if :{?maintenance_login}
\else
  \set maintenance_login tenantry_maintainer
\endif
\if :{?owner_role}
\else
  \set owner_role tenantry_owner
\endif
\if :{?app_role}
\else
  \set app_role tenantry_app
\endif
\if :{?authenticator_role}
\else
  \set authenticator_role tenantry_authenticator
\endif
\if :{?maintenance_role}
\else
  \set maintenance_role tenantry_maintenance
\endif
\if :{?broker_role}
\else
  \set broker_role tenantry_broker
\endif
\if :{?broker_schema}
\else
  \set broker_schema tenantry_broker
\endif
\if :{?organization_setting}
\else
  \set organization_setting app.current_organization
\endif
\if :{?user_setting}
\else
  \set user_setting app.current_user
\endif
\if :{?schema}
\else
  \set schema public
\endif
\if :{?tenant_column}
\else
  \set tenant_column organization_id
\endif
\if :{?root_table}
\else
  \set root_table organizations
\endif
\if :{?token_table}
\else
  \set token_table api_tokens
\endif
\if :{?log_table}
\else
  \set log_table maintenance_log
\endif

-- \getenv leaves a variable alone when the environment has none.
\set tenantry_app_password ''
\set tenantry_migrator_password ''
\set tenantry_maintenance_password ''
\getenv tenantry_app_password TENANTRY_APP_PASSWORD
\getenv tenantry_migrator_password TENANTRY_MIGRATOR_PASSWORD
\getenv tenantry_maintenance_password TENANTRY_MAINTENANCE_PASSWORD
\if :{?app_password}
  \set tenantry_app_password :app_password
\endif
\if :{?migrator_password}
  \set tenantry_migrator_password :migrator_password
\endif
\if :{?maintenance_password}
  \set tenantry_maintenance_password :maintenance_password
\endif

begin;

-- The refusals come first, while nothing has been written.
do $$
begin
  if pg_catalog.current_setting('server_version_num')::integer < 150000 then
    raise exception 'PostgreSQL 15 or newer is needed, this server is %',
      pg_catalog.current_setting('server_version');
  end if;
  if not (select r.rolsuper from pg_catalog.pg_roles as r where r.rolname = current_user) then
    raise exception 'role % is not a superuser: a DBA has to run roles.sql', current_user;
  end if;
  if (select d.datistemplate from pg_catalog.pg_database as d
      where d.datname = pg_catalog.current_database()) then
    raise exception 'database % is a template: connect to the application''s database with psql -d',
      pg_catalog.current_database();
  end if;
end
$$;

set local search_path = pg_catalog, pg_temp;
set local client_min_messages = warning;
-- The statements with a password in them are kept out of the server's log and statistics.
set local log_statement = 'none';
set local log_min_duration_statement = -1;
set local log_min_error_statement = 'panic';
set local pg_stat_statements.track = 'none';
set local password_encryption = 'scram-sha-256';

-- psql does not look into a dollar-quoted body, so what the bodies below need travels as settings.
select
  pg_catalog.set_config('tenantry.app_login', :'app_login', true),
  pg_catalog.set_config('tenantry.migrator_login', :'migrator_login', true),
  pg_catalog.set_config('tenantry.maintenance_login', :'maintenance_login', true),
  pg_catalog.set_config('tenantry.owner_role', :'owner_role', true),
  pg_catalog.set_config('tenantry.app_role', :'app_role', true),
  pg_catalog.set_config('tenantry.authenticator_role', :'authenticator_role', true),
  pg_catalog.set_config('tenantry.maintenance_role', :'maintenance_role', true),
  pg_catalog.set_config('tenantry.broker_role', :'broker_role', true),
  pg_catalog.set_config('tenantry.broker_schema', :'broker_schema', true),
  pg_catalog.set_config('tenantry.organization_setting', :'organization_setting', true),
  pg_catalog.set_config('tenantry.user_setting', :'user_setting', true),
  pg_catalog.set_config('tenantry.schema', :'schema', true),
  pg_catalog.set_config('tenantry.tenant_column', :'tenant_column', true),
  pg_catalog.set_config('tenantry.root_table', :'root_table', true),
  pg_catalog.set_config('tenantry.token_table', :'token_table', true),
  pg_catalog.set_config('tenantry.log_table', :'log_table', true),
  pg_catalog.set_config('tenantry.app_password', :'tenantry_app_password', true),
  pg_catalog.set_config('tenantry.migrator_password', :'tenantry_migrator_password', true),
  pg_catalog.set_config('tenantry.maintenance_password', :'tenantry_maintenance_password', true)
\gset tenantry_ignored_
\unset tenantry_ignored_set_config

create temporary table tenantry_steps (
  step integer generated always as identity,
  object text not null,
  change text not null
) on commit drop;

create function pg_temp.tenantry_step(object text, change text, statement text) returns void
language plpgsql as $$
begin
  execute statement;
  insert into pg_temp.tenantry_steps (object, change) values (object, change);
end
$$;

-- Roles. A group role is brought to its attributes; a login that exists is used as it is, unless it
-- could see past row security, which no grant below could mend.
do $$
declare
  role record;
  found_role pg_catalog.pg_roles;
  attributes text;
begin
  if (select pg_catalog.count(distinct name) < 8 or pg_catalog.bool_or(name = '')
      from pg_catalog.unnest(array[
        pg_catalog.current_setting('tenantry.app_login'),
        pg_catalog.current_setting('tenantry.migrator_login'),
        pg_catalog.current_setting('tenantry.maintenance_login'),
        pg_catalog.current_setting('tenantry.owner_role'),
        pg_catalog.current_setting('tenantry.app_role'),
        pg_catalog.current_setting('tenantry.authenticator_role'),
        pg_catalog.current_setting('tenantry.maintenance_role'),
        pg_catalog.current_setting('tenantry.broker_role')]) as name) then
    raise exception 'the five roles and the three logins need eight different names';
  end if;
  for role in
    select named.kind, pg_catalog.current_setting(named.parameter) as name, named.bypass
    from (values
      ('group', 'tenantry.owner_role', false),
      ('group', 'tenantry.app_role', false),
      ('group', 'tenantry.authenticator_role', false),
      ('group', 'tenantry.maintenance_role', true),
      ('group', 'tenantry.broker_role', false),
      ('login', 'tenantry.app_login', false),
      ('migrator', 'tenantry.migrator_login', false),
      ('login', 'tenantry.maintenance_login', false)
    ) as named (kind, parameter, bypass)
  loop
    attributes := pg_catalog.concat_ws(' ',
      case role.kind when 'group' then 'nologin' else 'login' end,
      case when role.bypass then 'bypassrls' else 'nobypassrls' end,
      case role.kind when 'migrator' then 'createrole' else 'nocreaterole' end,
      'nosuperuser nocreatedb noreplication inherit');
    select r.* into found_role from pg_catalog.pg_roles as r where r.rolname = role.name;
    if not found then
      perform pg_temp.tenantry_step('role ' || role.name, 'created: ' || attributes,
        pg_catalog.format('create role %I %s', role.name, attributes));
    elsif found_role.rolsuper then
      raise exception 'role "%" is a superuser and row security never applies to it: name another',
        role.name;
    elsif role.kind <> 'group' and (found_role.rolbypassrls or found_role.rolreplication) then
      raise exception 'login "%" has BYPASSRLS or REPLICATION: take it away, or name another',
        role.name;
    elsif role.kind = 'login' and found_role.rolcreaterole then
      raise exception 'login "%" has CREATEROLE: take it away, or name another', role.name;
    else
      if role.kind <> 'group' then
        attributes := case role.kind when 'migrator' then 'login createrole' else 'login' end;
      end if;
      perform pg_temp.tenantry_step('role ' || role.name, 'exists: ' || attributes,
        pg_catalog.format('alter role %I %s', role.name, attributes));
    end if;
  end loop;
end
$$;

-- Memberships. Up to PostgreSQL 15 the member's INHERIT attribute decides for all of them and
-- CREATEROLE administers every role; from 16 on each membership says what it is for. The owner may
-- become the authenticator, or it could not hand over the function that looks up a token. The
-- migrator administers the roles as if it had made them, and no more: it cannot act as the
-- application, and has nothing to do with the maintenance role.
do $$
declare
  membership record;
  explicit constant boolean :=
    pg_catalog.current_setting('server_version_num')::integer >= 160000;
begin
  for membership in
    select pg_catalog.current_setting(pair.granted) as granted,
           pg_catalog.current_setting(pair.member) as member, pair.options, pair.purpose
    from (values
      ('tenantry.owner_role', 'tenantry.migrator_login', 'inherit true, set true, admin true',
       'member'),
      ('tenantry.app_role', 'tenantry.app_login', 'inherit true, set true', 'member'),
      ('tenantry.maintenance_role', 'tenantry.maintenance_login', 'inherit true, set true',
       'member'),
      ('tenantry.authenticator_role', 'tenantry.owner_role', 'inherit false, set true', 'member'),
      ('tenantry.app_role', 'tenantry.migrator_login', 'inherit false, set false, admin true',
       'administrator'),
      ('tenantry.authenticator_role', 'tenantry.migrator_login',
       'inherit false, set false, admin true', 'administrator')
    ) as pair (granted, member, options, purpose)
    where explicit or pair.purpose = 'member'
  loop
    perform pg_temp.tenantry_step('role ' || membership.member,
      pg_catalog.format('%s of %s', membership.purpose, membership.granted),
      pg_catalog.format('grant %I to %I', membership.granted, membership.member)
      || case when explicit then ' with ' || membership.options else '' end);
  end loop;
end
$$;

-- Passwords.
do $$
declare
  login record;
begin
  for login in
    select pg_catalog.current_setting(pair.login) as name,
           pg_catalog.current_setting(pair.password) as password
    from (values
      ('tenantry.app_login', 'tenantry.app_password'),
      ('tenantry.migrator_login', 'tenantry.migrator_password'),
      ('tenantry.maintenance_login', 'tenantry.maintenance_password')
    ) as pair (login, password)
  loop
    if login.password <> '' then
      perform pg_temp.tenantry_step('role ' || login.name, 'password set',
        pg_catalog.format('alter role %I password %L', login.name, login.password));
    end if;
  end loop;
end
$$;

-- The database. Only its owner may store a default for it, and only with SET on the parameter: the
-- migrator has both, so that a migration can do this by itself. '' stands for "no tenant".
do $$
declare
  database text := pg_catalog.current_database();
  migrator_login text := pg_catalog.current_setting('tenantry.migrator_login');
  role text;
  setting text;
  quoted text;
begin
  perform pg_temp.tenantry_step('database ' || database, 'owned by ' || migrator_login,
    pg_catalog.format('alter database %I owner to %I', database, migrator_login));
  perform pg_temp.tenantry_step('database ' || database, 'no CREATE and TEMP for PUBLIC',
    pg_catalog.format('revoke create, temporary on database %I from public', database));
  foreach role in array array[
    migrator_login,
    pg_catalog.current_setting('tenantry.owner_role'),
    pg_catalog.current_setting('tenantry.app_role'),
    pg_catalog.current_setting('tenantry.maintenance_role'),
    pg_catalog.current_setting('tenantry.broker_role')]
  loop
    perform pg_temp.tenantry_step('database ' || database, 'CONNECT for ' || role,
      pg_catalog.format('grant connect on database %I to %I', database, role));
  end loop;
  foreach setting in array array[
    pg_catalog.current_setting('tenantry.organization_setting'),
    pg_catalog.current_setting('tenantry.user_setting')]
  loop
    -- Part by part: current_user alone is a keyword.
    select pg_catalog.string_agg(pg_catalog.quote_ident(part.name), '.' order by part.position)
      into quoted
      from pg_catalog.string_to_table(setting, '.') with ordinality as part (name, position);
    perform pg_temp.tenantry_step('setting ' || setting, 'is '''' in this database',
      pg_catalog.format('alter database %I set %s = %L', database, quoted, ''));
    perform pg_temp.tenantry_step('setting ' || setting,
      pg_catalog.format('SET for %s alone', migrator_login),
      pg_catalog.format('revoke all on parameter %1$s from public, %2$I, %3$I;'
                        'grant set on parameter %1$s to %4$I', quoted,
        pg_catalog.current_setting('tenantry.app_role'),
        pg_catalog.current_setting('tenantry.app_login'), migrator_login));
  end loop;
end
$$;

-- The schema, and what the owner makes from now on. The owner's right is grantable, because a role
-- that is handed a function needs CREATE on its schema at that moment.
do $$
declare
  schema text := pg_catalog.current_setting('tenantry.schema');
  owner_role text := pg_catalog.current_setting('tenantry.owner_role');
  role text;
begin
  if pg_catalog.to_regnamespace(pg_catalog.quote_ident(schema)) is null then
    perform pg_temp.tenantry_step('schema ' || schema, 'created',
      pg_catalog.format('create schema %I authorization %I', schema, owner_role));
  end if;
  perform pg_temp.tenantry_step('schema ' || schema, 'no CREATE for PUBLIC',
    pg_catalog.format('revoke create on schema %I from public', schema));
  perform pg_temp.tenantry_step('schema ' || schema, 'USAGE and CREATE for ' || owner_role,
    pg_catalog.format('grant usage, create on schema %I to %I with grant option',
                      schema, owner_role));
  foreach role in array array[
    pg_catalog.current_setting('tenantry.app_role'),
    pg_catalog.current_setting('tenantry.authenticator_role'),
    pg_catalog.current_setting('tenantry.maintenance_role')]
  loop
    perform pg_temp.tenantry_step('schema ' || schema, 'USAGE for ' || role,
      pg_catalog.format('grant usage on schema %I to %I', schema, role));
  end loop;
  -- Without "in schema": a default for one schema cannot take away what the global one gives.
  perform pg_temp.tenantry_step('role ' || owner_role, 'its new functions: no EXECUTE for PUBLIC',
    pg_catalog.format('alter default privileges for role %I revoke execute on functions from public',
                      owner_role));
end
$$;

-- Celery's messages and results are everybody's: a schema that the broker role alone gets into.
do $$
declare
  schema text := pg_catalog.current_setting('tenantry.broker_schema');
  broker_role text := pg_catalog.current_setting('tenantry.broker_role');
begin
  if pg_catalog.to_regnamespace(pg_catalog.quote_ident(schema)) is null then
    perform pg_temp.tenantry_step('schema ' || schema, 'created',
      pg_catalog.format('create schema %I authorization %I', schema,
        pg_catalog.current_setting('tenantry.owner_role')));
  end if;
  perform pg_temp.tenantry_step('schema ' || schema, 'nothing for PUBLIC',
    pg_catalog.format('revoke all on schema %I from public, %I', schema,
      pg_catalog.current_setting('tenantry.app_role')));
  perform pg_temp.tenantry_step('schema ' || schema, 'USAGE and CREATE for ' || broker_role,
    pg_catalog.format('grant usage, create on schema %I to %I', schema, broker_role));
end
$$;

-- Tables that exist already. TRUNCATE, REFERENCES and TRIGGER are outside row security and so are
-- taken away; a partition is reached through its parent and gets no grant of its own.
do $$
declare
  owner_role text := pg_catalog.current_setting('tenantry.owner_role');
  app_role text := pg_catalog.current_setting('tenantry.app_role');
  authenticator_role text := pg_catalog.current_setting('tenantry.authenticator_role');
  maintenance_role text := pg_catalog.current_setting('tenantry.maintenance_role');
  relation record;
begin
  for relation in
    select c.oid::regclass::text as name, c.relname, c.relispartition,
           c.relname = pg_catalog.current_setting('tenantry.log_table') as is_log,
           c.relname = 'alembic_version' as is_version,
           pg_catalog.format('table %I', c.relname) as label
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname = pg_catalog.current_setting('tenantry.schema')
      and c.relkind in ('r', 'p')
      and (c.relname in (pg_catalog.current_setting('tenantry.root_table'),
                         pg_catalog.current_setting('tenantry.log_table'),
                         'alembic_version')
           or exists (
             select from pg_catalog.pg_attribute as a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and a.attname = pg_catalog.current_setting('tenantry.tenant_column')))
    order by c.relispartition, c.relname
  loop
    perform pg_temp.tenantry_step(relation.label, 'owned by ' || owner_role,
      pg_catalog.format('alter table %s owner to %I', relation.name, owner_role));
    perform pg_temp.tenantry_step(relation.label, 'nothing for PUBLIC',
      pg_catalog.format('revoke all on table %s from public, %I, %I, %I', relation.name,
                        app_role, authenticator_role, maintenance_role));
    if relation.is_log then
      perform pg_temp.tenantry_step(relation.label, 'INSERT for ' || maintenance_role,
        pg_catalog.format('grant insert on table %s to %I', relation.name, maintenance_role));
    elsif not relation.is_version and not relation.relispartition then
      perform pg_temp.tenantry_step(relation.label,
        pg_catalog.format('SELECT, INSERT, UPDATE, DELETE for %s, %s', app_role, maintenance_role),
        pg_catalog.format('grant select, insert, update, delete on table %s to %I, %I',
                          relation.name, app_role, maintenance_role));
      if relation.relname = pg_catalog.current_setting('tenantry.token_table') then
        perform pg_temp.tenantry_step(relation.label, 'SELECT for ' || authenticator_role,
          pg_catalog.format('grant select on table %s to %I', relation.name, authenticator_role));
      end if;
    end if;
  end loop;
end
$$;

-- The function that looks up a token, where it exists: it runs as the authenticator. It needs CREATE
-- on the schema for no longer than the hand-over, which a superuser does without.
do $$
declare
  routine text := pg_catalog.to_regprocedure(pg_catalog.format('%I.authenticate_token(bytea)',
    pg_catalog.current_setting('tenantry.schema')))::text;
  app_role text := pg_catalog.current_setting('tenantry.app_role');
  authenticator_role text := pg_catalog.current_setting('tenantry.authenticator_role');
begin
  if routine is not null then
    perform pg_temp.tenantry_step('function ' || routine,
      pg_catalog.format('owned by %s, EXECUTE for %s alone', authenticator_role, app_role),
      pg_catalog.format('alter function %1$s owner to %2$I;'
                        'revoke execute on function %1$s from public;'
                        'grant execute on function %1$s to %3$I',
                        routine, authenticator_role, app_role));
  end if;
end
$$;

-- Functions of the server that let one tenant's session look at, or end, another's; and large
-- objects, which row security does not know. Monitoring keeps its right through predefined roles.
do $$
declare
  routine record;
begin
  for routine in
    select p.oid::pg_catalog.regprocedure::text as name,
           case
             when p.proname in ('pg_stat_get_activity', 'pg_stat_get_backend_activity')
               then 'pg_read_all_stats'
             when p.proname in ('pg_cancel_backend', 'pg_terminate_backend')
               then 'pg_signal_backend'
           end as kept
    from pg_catalog.pg_proc as p
    where p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace
      and (p.proname in ('pg_stat_get_activity', 'pg_stat_get_backend_activity',
                         'pg_terminate_backend', 'pg_cancel_backend', 'loread', 'lowrite')
           or p.proname like 'lo\_%')
    order by kept, name
  loop
    perform pg_temp.tenantry_step('function ' || routine.name,
      'no EXECUTE for PUBLIC' || coalesce(', kept for ' || routine.kept, ''),
      pg_catalog.format('revoke execute on function %s from public', routine.name)
      || coalesce(pg_catalog.format('; grant execute on function %s to ', routine.name)
                  || routine.kept, ''));
  end loop;
end
$$;

\pset footer off
select
  case when s.object like 'function lo%' then 'functions for large objects' else s.object end
    as object,
  s.change
from pg_temp.tenantry_steps as s
group by 1, 2
order by pg_catalog.min(s.step);
\pset footer on

select
  pg_catalog.count(*) > 0 as tenantry_passwordless,
  pg_catalog.string_agg('  \password ' || pg_catalog.quote_ident(a.rolname), E'\n'
                        order by a.rolname) as tenantry_password_commands
from pg_catalog.pg_authid as a
where a.rolpassword is null
  and a.rolname in (:'app_login', :'migrator_login', :'maintenance_login')
\gset

commit;

\if :tenantry_passwordless
  \echo 'These logins have no password yet. In psql:'
  \echo :tenantry_password_commands
\endif
\unset tenantry_app_password
\unset tenantry_migrator_password
\unset tenantry_maintenance_password
\set QUIET :tenantry_quiet

-- Purpose: find out whether the tenants of the database psql is connected to are kept apart. Lists
--          each table with a tenant column: row security, policies, grants, owner, verdict; then the
--          roles that reach them, then the settings, and last one line with the verdict.
-- Run by:  any role that can connect; it reads the system catalogs alone.
-- Twice:   yes. It is one read-only transaction and ends in rollback.
--
--   psql -X -q -v ON_ERROR_STOP=1 -f sql/audit.sql "$URL" [-v tenant_column=NAME …]
--
-- With ON_ERROR_STOP psql exits with status 3 when a tenant table is not isolated, or when there is
-- no tenant table to look at. Variables: sql/README.md.

\set tenantry_quiet :QUIET
\set QUIET on
\set SHOW_CONTEXT never
\pset footer off

\if :{?tenant_column}
\else
  \set tenant_column organization_id
\endif
\if :{?id_type}
\else
  \set id_type uuid
\endif
\if :{?organization_setting}
\else
  \set organization_setting app.current_organization
\endif
\if :{?user_setting}
\else
  \set user_setting app.current_user
\endif
\if :{?app_role}
\else
  \set app_role tenantry_app
\endif
-- A root table that was asked for has to be there; the default one only if the database has it.
\if :{?root_table}
  \set tenantry_root_required true
\else
  \set tenantry_root_required false
  \set root_table organizations
\endif
\if :{?root_column}
\else
  \set root_column id
\endif
\if :{?authenticator_role}
\else
  \set authenticator_role tenantry_authenticator
\endif
\if :{?token_table}
\else
  \set token_table api_tokens
\endif
\if :{?schemas}
\else
  \set schemas ''
\endif

select :SERVER_VERSION_NUM < 150000 as tenantry_too_old
\gset
\if :tenantry_too_old
  \echo 'PostgreSQL 15 or newer is needed, this server is older: nothing was looked at.'
  do $$ begin raise exception 'NOT ISOLATED: the audit needs PostgreSQL 15 or newer'; end $$;
  \set QUIET :tenantry_quiet
  \quit
\endif

begin read only;

-- With this search path whatever is not the system's own prints with its schema, so that a function
-- or an operator planted under a familiar name cannot pass for it in the text of a policy.
set local search_path = pg_catalog, pg_temp;
set local quote_all_identifiers = off;

-- Parameters and results travel as settings of this transaction: there is no temporary table in a
-- read-only transaction, and each query below stays plain SQL that any client can send.
select
  pg_catalog.set_config('tenantry.tenant_column', :'tenant_column', true),
  pg_catalog.set_config('tenantry.id_type', :'id_type', true),
  pg_catalog.set_config('tenantry.organization_setting', :'organization_setting', true),
  pg_catalog.set_config('tenantry.user_setting', :'user_setting', true),
  pg_catalog.set_config('tenantry.app_role', :'app_role', true),
  pg_catalog.set_config('tenantry.root_table', :'root_table', true),
  pg_catalog.set_config('tenantry.root_required', :'tenantry_root_required', true),
  pg_catalog.set_config('tenantry.root_column', :'root_column', true),
  pg_catalog.set_config('tenantry.authenticator_role', :'authenticator_role', true),
  pg_catalog.set_config('tenantry.token_table', :'token_table', true),
  pg_catalog.set_config('tenantry.schemas',
    case
      when :'schemas' like '{%' then :'schemas'
      else (select coalesce(pg_catalog.array_agg(pg_catalog.btrim(s.name)), '{}')::text
            from pg_catalog.string_to_table(:'schemas', ',') as s (name)
            where pg_catalog.btrim(s.name) <> '')
    end, true)
\gset tenantry_ignored_

-- What stands in place before anything can be said about tables.
select pg_catalog.set_config('tenantry.parameter_faults',
  pg_catalog.to_jsonb(pg_catalog.array_remove(array[
    case when pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type')) is null
      then pg_catalog.format('%s is not a type: set -v id_type to uuid, bigint, integer or text',
                             pg_catalog.current_setting('tenantry.id_type')) end,
    case when not exists (select from pg_catalog.pg_roles as r
                          where r.rolname = pg_catalog.current_setting('tenantry.app_role'))
      then pg_catalog.format('there is no role %s: run sql/roles.sql or the migrations, or set '
                             '-v app_role to the role the application has',
                             pg_catalog.current_setting('tenantry.app_role')) end,
    (select pg_catalog.format('there is no schema %s: mend -v schemas',
                              pg_catalog.string_agg(s.name, ', ' order by s.name))
     from pg_catalog.unnest(pg_catalog.current_setting('tenantry.schemas')::text[]) as s (name)
     where not exists (select from pg_catalog.pg_namespace as n where n.nspname = s.name)
     having pg_catalog.count(*) > 0)
  ], null))::text, true)
\gset tenantry_ignored_

-- One part, one question. Each leaves its answer in a setting of this transaction.
\ir audit/acting.sql
\ir audit/roles.sql
\ir audit/tables.sql
\ir audit/settings.sql

-- What was found, for a person.
\echo 'Tables'
select
  t.schema, t.name as "table", t.row_security as "row security", t.policies,
  coalesce(t.of_app, 'nothing') as "granted to the application",
  coalesce(t.of_public, 'nothing') as "to PUBLIC",
  t.owner,
  case when t.faults = '[]' then 'isolated' else 'NOT ISOLATED: ' end
  || (select coalesce(pg_catalog.string_agg(f.fault, E';\n' order by f.position), '')
      from pg_catalog.jsonb_array_elements_text(t.faults) with ordinality as f (fault, position))
  || (select coalesce(pg_catalog.string_agg(E'\nnote: ' || n.note, '' order by n.position), '')
      from pg_catalog.jsonb_array_elements_text(t.notes) with ordinality as n (note, position))
    as verdict
from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.tables')::jsonb) as t (
  schema text, name text, row_security text, policies text, of_app text, of_public text, owner text,
  faults jsonb, notes jsonb)
order by t.schema, t.name;

\echo 'Roles that act as the application'
select
  r.rolname as role,
  pg_catalog.concat_ws(', ',
    case when r.rolcanlogin then 'login' else 'no login' end,
    case when r.rolsuper then 'superuser' end,
    case when r.rolbypassrls then 'BYPASSRLS' end,
    case when r.rolcreaterole then 'CREATEROLE' end,
    case when r.rolreplication then 'REPLICATION' end) as attributes,
  coalesce(r.can_become, 'no other role') as "can become",
  case when r.faults = '[]' then 'confined' else 'NOT CONFINED: ' end
  || (select coalesce(pg_catalog.string_agg(f.fault, E';\n' order by f.position), '')
      from pg_catalog.jsonb_array_elements_text(r.faults) with ordinality as f (fault, position))
    as verdict
from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.roles')::jsonb) as r (
  rolname text, rolcanlogin boolean, rolsuper boolean, rolbypassrls boolean, rolcreaterole boolean,
  rolreplication boolean, can_become text, faults jsonb);

\echo 'Settings that carry the tenant'
select
  s.name as setting, s.now as "in this session", coalesce(s.stored, 'nothing') as "stored default",
  case when s.faults = '[]' then 'no tenant by default' else 'FAULT: ' end
  || (select coalesce(pg_catalog.string_agg(f.fault, E';\n' order by f.position), '')
      from pg_catalog.jsonb_array_elements_text(s.faults) with ordinality as f (fault, position))
    as verdict
from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.settings')::jsonb) as s (
  name text, now text, stored text, faults jsonb);

-- And the verdict. An audit that saw nothing has not passed.
with
  tables as materialized (
    select t.schema, t.name, t.kind, t.is_root, t.faults
    from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.tables')::jsonb) as t (
      schema text, name text, kind text, is_root boolean, faults jsonb)
  ),
  problem as materialized (
    select pg_catalog.concat_ws('; ',
      (select pg_catalog.string_agg(fault, '; ')
       from pg_catalog.jsonb_array_elements_text(
         pg_catalog.current_setting('tenantry.parameter_faults')::jsonb) as fault),
      (select pg_catalog.format('no table has the column %s: run the migrations, or set '
                                '-v tenant_column', pg_catalog.current_setting('tenantry.tenant_column'))
       where not exists (select from tables where tables.kind = 'table' and not tables.is_root)),
      (select pg_catalog.format('there is no table %s: mend -v root_table',
                                pg_catalog.current_setting('tenantry.root_table'))
       where pg_catalog.current_setting('tenantry.root_required')::boolean
         and not exists (select from tables where tables.is_root)),
      (select pg_catalog.format('%s of %s tables and views (%s)', faulty.number, faulty.total,
                                faulty.names)
       from (select pg_catalog.count(*) filter (where tables.faults <> '[]') as number,
                    pg_catalog.count(*) as total,
                    pg_catalog.string_agg(pg_catalog.format('%I.%I', tables.schema, tables.name),
                      ', ' order by tables.schema, tables.name)
                      filter (where tables.faults <> '[]') as names
             from tables) as faulty
       where faulty.number > 0),
      (select 'roles not confined: ' || faulty.names
       from (select pg_catalog.string_agg(pg_catalog.quote_ident(r.rolname), ', ') as names
             from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.roles')::jsonb)
               as r (rolname text, faults jsonb)
             where r.faults <> '[]') as faulty
       where faulty.names is not null),
      (select 'settings with a fault: ' || faulty.names
       from (select pg_catalog.string_agg(s.name, ', ') as names
             from pg_catalog.jsonb_to_recordset(
               pg_catalog.current_setting('tenantry.settings')::jsonb) as s (name text, faults jsonb)
             where s.faults <> '[]') as faulty
       where faulty.names is not null)
    ) as text
  )
select
  problem.text <> '' as tenantry_faulty,
  pg_catalog.set_config('tenantry.verdict',
    case when problem.text <> '' then 'NOT ISOLATED: ' || problem.text
      else pg_catalog.format('ISOLATED: %s tables and views, no fault found',
                             (select pg_catalog.count(*) from tables)) end,
    true) as tenantry_verdict
from problem
\gset

\echo :tenantry_verdict
\if :tenantry_faulty
  do $$ begin raise exception '%', pg_catalog.current_setting('tenantry.verdict'); end $$;
\endif

rollback;
\pset footer on
\set QUIET :tenantry_quiet

-- Purpose: find out whether the tenants of the database psql is connected to are kept apart. Prints
--          each finding with what is wrong, how to mend it and the statement that does, and last one
--          line with the verdict.
-- Run by:  any role that can connect; it reads the system catalogs alone.
-- Twice:   yes. It is one read-only transaction and ends in rollback.
--
--   psql -X -q -v ON_ERROR_STOP=1 -f sql/audit.sql "$URL" [-v tenant_column=NAME ...] [-v check=ID]
--
-- With ON_ERROR_STOP psql exits with status 3 when there is a finding of severity error, when there
-- is no tenant table to look at, or when a check could not look. Variables: sql/README.md;
-- -v list=on lists the tables with what protects each command, and the application's roles.

\set tenantry_quiet :QUIET
\set QUIET on
\set SHOW_CONTEXT never

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

\if :{?check}
\else
  \set check ''
\endif
\if :{?skip}
\else
  \set skip ''
\endif
\if :{?list}
\else
  \set list off
\endif
\if :{?nowhere}
\else
  \set nowhere /dev/null
\endif
\if :{?ON_ERROR_STOP}
  \set tenantry_stop :ON_ERROR_STOP
\else
  \set tenantry_stop off
\endif

select :SERVER_VERSION_NUM < 150000 as tenantry_too_old
\gset
\if :tenantry_too_old
  \echo 'PostgreSQL 15 or newer is needed, this server is older: nothing was looked at.'
  do $$ begin raise exception 'NOT ISOLATED: the audit needs PostgreSQL 15 or newer'; end $$;
  \set QUIET :tenantry_quiet
  \quit
\endif

-- Names that the client's encoding has no characters for would keep their checks from looking.
\set tenantry_encoding :ENCODING
select pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII' as tenantry_encoded
\gset
\if :tenantry_encoded
  \encoding UTF8
\endif

begin isolation level repeatable read read only;

\o :nowhere
\ir ../src/tenantry/audit/transaction.sql
\o

-- Parameters travel as settings of this transaction: there is no temporary table in a read-only
-- transaction, and each check stays plain SQL that any client can send.
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

-- What is no type is a finding; what cannot be the name of one is refused, before a query breaks on it.
do $$
begin
  if pg_catalog.btrim(pg_catalog.current_setting('tenantry.id_type')) = '' then
    raise exception '';
  end if;
  perform pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type'));
exception when others then
  raise exception 'id_type=% cannot be the name of a type: use uuid, bigint, integer or text',
    pg_catalog.current_setting('tenantry.id_type');
end
$$;
\set tenantry_refused :ERROR
\if :tenantry_refused
  rollback;
  \encoding :tenantry_encoding
  \set QUIET :tenantry_quiet
  \quit
\endif

-- Names say what somebody chose: aligned, a control character is written out and what follows a line
-- break is indented, so that no name begins a line and passes for the verdict.
\pset footer off
\pset tuples_only on
\pset expanded on
\pset format aligned
\pset border 0
\pset linestyle old-ascii
\pset null 'none: somebody has to decide'

-- What several checks need. Aligned, a query without rows prints an empty line.
\o :nowhere
\ir ../src/tenantry/audit/facts/expression.sql
\ir ../src/tenantry/audit/facts/settings.sql
\ir ../src/tenantry/audit/facts/reach.sql
\ir ../src/tenantry/audit/facts/memberships.sql
\ir ../src/tenantry/audit/facts/tables.sql
\ir ../src/tenantry/audit/facts/holders.sql
\ir ../src/tenantry/audit/facts/policies.sql
\ir ../src/tenantry/audit/facts/policy_functions.sql
\ir ../src/tenantry/audit/facts/foreign_keys.sql
\ir ../src/tenantry/audit/facts/shared_tables.sql
\ir ../src/tenantry/audit/facts/views.sql
\ir ../src/tenantry/audit/facts/definers.sql
\o

-- One check, one question. A check that may not look is counted and does not end the audit.
\set ON_ERROR_STOP off
\set ON_ERROR_ROLLBACK on
\set tenantry_findings 0
\set tenantry_unseen 0
\set tenantry_checks 0

\if :list
  \ir audit/list.sql
\endif

-- Severity: error.
\set check_id nothing_audited
\ir audit/check.sql
\set check_id authenticator_unconfined
\ir audit/check.sql
\set check_id catalog_readable
\ir audit/check.sql
\set check_id definer_function_exposed
\ir audit/check.sql
\set check_id definer_function_search_path
\ir audit/check.sql
\set check_id foreign_key_cascades
\ir audit/check.sql
\set check_id foreign_key_clears_tenant
\ir audit/check.sql
\set check_id function_leakproof
\ir audit/check.sql
\set check_id inheritance_parent_exposed
\ir audit/check.sql
\set check_id parameter_granted
\ir audit/check.sql
\set check_id policy_expression
\ir audit/check.sql
\set check_id policy_function_early
\ir audit/check.sql
\set check_id policy_function_immutable
\ir audit/check.sql
\set check_id privilege_unguarded
\ir audit/check.sql
\set check_id row_security_off
\ir audit/check.sql
\set check_id rule_on_tenant_table
\ir audit/check.sql
\set check_id runtime_role_predefined
\ir audit/check.sql
\set check_id runtime_role_privileged
\ir audit/check.sql
\set check_id server_files_reachable
\ir audit/check.sql
\set check_id setting_default
\ir audit/check.sql
\set check_id shared_table_tenant_data
\ir audit/check.sql
\set check_id table_owner_reachable
\ir audit/check.sql
\set check_id tenant_column_collation
\ir audit/check.sql
\set check_id trigger_by_definer
\ir audit/check.sql
\set check_id view_without_security_invoker
\ir audit/check.sql
\set check_id wall_missing
\ir audit/check.sql
\set tenantry_errors :tenantry_findings
\set tenantry_findings 0

-- Severity: warning.
\set check_id activity_visible
\ir audit/check.sql
\set check_id audit_limited
\ir audit/check.sql
\set check_id backend_signal
\ir audit/check.sql
\set check_id constraint_unenforced
\ir audit/check.sql
\set check_id database_temporary
\ir audit/check.sql
\set check_id default_privileges_open
\ir audit/check.sql
\set check_id definer_function_lends
\ir audit/check.sql
\set check_id definer_function_public
\ir audit/check.sql
\set check_id extension_reaches_out
\ir audit/check.sql
\set check_id foreign_key_without_tenant
\ir audit/check.sql
\set check_id function_native
\ir audit/check.sql
\set check_id grant_option
\ir audit/check.sql
\set check_id granted_to_public
\ir audit/check.sql
\set check_id index_not_led_by_tenant
\ir audit/check.sql
\set check_id large_objects_reachable
\ir audit/check.sql
\set check_id maintenance_log_open
\ir audit/check.sql
\set check_id policy_function_unpinned
\ir audit/check.sql
\set check_id predefined_role_wide
\ir audit/check.sql
\set check_id publication_of_tenant_table
\ir audit/check.sql
\set check_id role_reachable
\ir audit/check.sql
\set check_id rows_unjudged
\ir audit/check.sql
\set check_id runtime_role_createdb
\ir audit/check.sql
\set check_id runtime_role_owns
\ir audit/check.sql
\set check_id schema_create
\ir audit/check.sql
\set check_id sequence_exposed
\ir audit/check.sql
\set check_id server_version_cve
\ir audit/check.sql
\set check_id shared_table_writable
\ir audit/check.sql
\set check_id tenant_column_default
\ir audit/check.sql
\set check_id tenant_column_nullable
\ir audit/check.sql
\set check_id unique_without_tenant
\ir audit/check.sql
\set tenantry_warnings :tenantry_findings
\set tenantry_findings 0

-- Severity: note.
\set check_id database_connect_public
\ir audit/check.sql
\set check_id event_trigger_disabled
\ir audit/check.sql
\set check_id function_execute_public
\ir audit/check.sql
\set check_id index_missing_tenant
\ir audit/check.sql
\set check_id index_not_leakproof
\ir audit/check.sql
\set check_id maintain_granted
\ir audit/check.sql
\set check_id permissive_missing
\ir audit/check.sql
\set check_id policy_contained
\ir audit/check.sql
\set check_id policy_function_costly
\ir audit/check.sql
\set check_id row_security_disabled
\ir audit/check.sql
\set check_id serial_identifier
\ir audit/check.sql
\set check_id setting_undefined
\ir audit/check.sql
\set check_id view_of_the_owner
\ir audit/check.sql
\set tenantry_notes :tenantry_findings
\set tenantry_findings 0

\set ON_ERROR_STOP :tenantry_stop
\set ON_ERROR_ROLLBACK off

-- An audit that saw nothing has not passed.
select
  verdict.faults <> '' as tenantry_faulty,
  pg_catalog.set_config('tenantry.verdict',
    case when verdict.faults <> '' then 'NOT ISOLATED: ' || verdict.faults
      else pg_catalog.format('ISOLATED: %s checks of %s tables, no fault found',
        :'tenantry_checks',
        pg_catalog.json_array_length(pg_catalog.current_setting('tenantry.tables')::json)) end
    || case when :tenantry_warnings > 0 then '; warnings: ' || :'tenantry_warnings' else '' end
    || case when :tenantry_notes > 0 then '; notes: ' || :'tenantry_notes' else '' end
    || case when not exists (
           select from pg_catalog.json_to_recordset(
             pg_catalog.current_setting('tenantry.reach')::json) as r (runtime bigint)
           join pg_catalog.pg_roles as login on login.oid = r.runtime::oid and login.rolcanlogin)
         and pg_catalog.current_setting('tenantry.reach') <> '[]'
       then '; no login acts as the application' else '' end
    || case when :'skip' <> '' then '; not asked for: ' || :'skip' else '' end,
    true) as tenantry_verdict
from (
  select pg_catalog.concat_ws('; ',
    case when :tenantry_errors > 0
      then pg_catalog.format('%s error-level findings, see above', :'tenantry_errors') end,
    case when :tenantry_unseen > 0
      then pg_catalog.format('%s checks could not look', :'tenantry_unseen') end,
    case when :tenantry_checks = 0
      then pg_catalog.format('there is no check %s', :'check') end) as faults
) as verdict
\gset

\echo :tenantry_verdict
\if :tenantry_faulty
  do $$ begin raise exception '%', pg_catalog.current_setting('tenantry.verdict'); end $$;
\endif

rollback;
\encoding :tenantry_encoding
\pset tuples_only off
\pset expanded off
\pset border 1
\pset linestyle ascii
\pset null ''
\pset footer on
\set QUIET :tenantry_quiet

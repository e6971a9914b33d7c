-- Purpose: names the checks that cannot see all they judge as this role: one row for each thing
--          hidden, whose object is the check's id.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  limit_of (check_id, seen, what) as (
    values
      ('unique_without_tenant',
       pg_catalog.has_table_privilege('pg_catalog.pg_index', 'SELECT')
       and pg_catalog.has_table_privilege('pg_catalog.pg_constraint', 'SELECT'),
       'the indexes and constraints (pg_index, pg_constraint)'),
      ('view_without_security_invoker',
       pg_catalog.has_table_privilege('pg_catalog.pg_rewrite', 'SELECT')
       and pg_catalog.has_table_privilege('pg_catalog.pg_depend', 'SELECT'),
       'what a view depends on (pg_rewrite, pg_depend)'),
      ('setting_default',
       pg_catalog.has_table_privilege('pg_catalog.pg_db_role_setting', 'SELECT'),
       'the values stored for roles and databases (pg_db_role_setting)'),
      ('index_not_led_by_tenant', pg_catalog.has_table_privilege('pg_catalog.pg_index', 'SELECT'),
       'the indexes (pg_index)'),
      ('index_missing_tenant', pg_catalog.has_table_privilege('pg_catalog.pg_index', 'SELECT'),
       'the indexes (pg_index)'),
      ('index_not_leakproof', pg_catalog.has_table_privilege('pg_catalog.pg_index', 'SELECT'),
       'the indexes (pg_index)'),
      ('setting_undefined',
       pg_catalog.has_table_privilege('pg_catalog.pg_db_role_setting', 'SELECT'),
       'the values stored for roles and databases (pg_db_role_setting)'),
      ('row_security_disabled',
       pg_catalog.has_table_privilege('pg_catalog.pg_db_role_setting', 'SELECT'),
       'the values stored for roles and databases (pg_db_role_setting)'),
      ('parameter_granted',
       pg_catalog.has_table_privilege('pg_catalog.pg_parameter_acl', 'SELECT'),
       'who may change settings (pg_parameter_acl)'),
      ('default_privileges_open',
       pg_catalog.has_table_privilege('pg_catalog.pg_default_acl', 'SELECT'),
       'default privileges (pg_default_acl)'),
      ('function_execute_public',
       pg_catalog.has_table_privilege('pg_catalog.pg_default_acl', 'SELECT'),
       'default privileges (pg_default_acl)'),
      ('event_trigger_disabled',
       pg_catalog.has_table_privilege('pg_catalog.pg_event_trigger', 'SELECT'),
       'event triggers (pg_event_trigger)'),
      ('runtime_role_owns', pg_catalog.has_table_privilege('pg_catalog.pg_shdepend', 'SELECT'),
       'who owns what (pg_shdepend)'),
      ('shared_table_tenant_data',
       pg_catalog.has_table_privilege('pg_catalog.pg_constraint', 'SELECT'),
       'foreign keys (pg_constraint)')
  )
select
  'audit_limited' as check_id, 'warning' as severity, 'check' as object_type,
  l.check_id as object,
  pg_catalog.format('%I may not read %s', current_user, l.what) as problem,
  'run the audit as a role that may; an ordinary one can, where nothing was revoked from PUBLIC'
    as remedy,
  null as statement
from limit_of as l
where not l.seen
order by l.check_id, l.what

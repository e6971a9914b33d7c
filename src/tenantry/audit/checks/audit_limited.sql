-- Purpose: names the checks that cannot see all they judge as this role: one row for each thing
--          hidden, whose object is the check's id.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  limit_of (check_id, catalogs, what) as (
    values
      ('unique_without_tenant', '{pg_index,pg_constraint}'::text[], 'the indexes and constraints'),
      ('view_without_security_invoker', '{pg_rewrite,pg_depend}', 'what a view depends on'),
      ('setting_default', '{pg_db_role_setting}', 'the values stored for roles and databases'),
      ('setting_undefined', '{pg_db_role_setting}', 'the values stored for roles and databases'),
      ('row_security_disabled', '{pg_db_role_setting}', 'the values stored for roles and databases'),
      ('index_not_led_by_tenant', '{pg_index}', 'the indexes'),
      ('index_missing_tenant', '{pg_index}', 'the indexes'),
      ('index_not_leakproof', '{pg_index}', 'the indexes'),
      ('parameter_granted', '{pg_parameter_acl}', 'who may change settings'),
      ('default_privileges_open', '{pg_default_acl}', 'default privileges'),
      ('function_execute_public', '{pg_default_acl}', 'default privileges'),
      ('event_trigger_disabled', '{pg_event_trigger}', 'event triggers'),
      ('runtime_role_owns', '{pg_shdepend}', 'who owns what'),
      ('shared_table_tenant_data', '{pg_constraint}', 'foreign keys')
  )
select
  'audit_limited' as check_id, 'warning' as severity, 'check' as object_type,
  l.check_id as object,
  pg_catalog.format('%I may not read %s (%s)', current_user, l.what,
                    pg_catalog.array_to_string(l.catalogs, ', ')) as problem,
  'run the audit as a role that may; an ordinary one can, where nothing was revoked from PUBLIC'
    as remedy,
  null as statement
from limit_of as l
where exists (
  select from pg_catalog.unnest(l.catalogs) as c (name)
  where not pg_catalog.has_table_privilege('pg_catalog.' || c.name, 'SELECT'))
order by l.check_id, l.what

-- Purpose: finds parameters that name what is not there, and a database without a tenant table: an
--          audit that saw nothing has not passed.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.object, t."column", t.is_root
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (object text, "column" text, is_root boolean)
  ),
  fault (object_type, object, problem, remedy) as (
    select 'type', pg_catalog.current_setting('tenantry.id_type'),
           'the id type is not a type of this server',
           'set id_type to uuid, bigint, integer or text'
    where pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type')) is null
    union all
    select 'role', pg_catalog.quote_ident(pg_catalog.current_setting('tenantry.app_role')),
           'there is no such role, so that nobody is known to act as the application',
           'run sql/roles.sql or the migrations, or set app_role to the role the application has'
    where not exists (select from pg_catalog.pg_roles as r
                      where r.rolname = pg_catalog.current_setting('tenantry.app_role'))
    union all
    select 'schema', pg_catalog.quote_ident(s.name), 'there is no such schema',
           'mend schemas: they are separated by commas'
    from pg_catalog.unnest(pg_catalog.current_setting('tenantry.schemas')::text[]) as s (name)
    where not exists (select from pg_catalog.pg_namespace as n where n.nspname = s.name)
    union all
    select 'table', pg_catalog.quote_ident(pg_catalog.current_setting('tenantry.root_table')),
           'there is no such table, though it was named as the root table',
           'mend root_table, or leave it out'
    where pg_catalog.current_setting('tenantry.root_required')::boolean
      and not exists (select from tenant_table where is_root)
    union all
    select 'table', t.object,
           pg_catalog.format('the root table has no column %I to compare with the tenant',
                             pg_catalog.current_setting('tenantry.root_column')),
           'set root_column to its key'
    from tenant_table as t
    where t.is_root and t."column" is null
    union all
    select 'database', pg_catalog.quote_ident(pg_catalog.current_database()),
           pg_catalog.format('no table has the column %I',
                             pg_catalog.current_setting('tenantry.tenant_column')),
           'run the migrations, or set tenant_column'
    where not exists (select from tenant_table where not is_root)
  )
select
  'nothing_audited' as check_id, 'error' as severity, f.object_type, f.object, f.problem, f.remedy,
  null as statement
from fault as f
order by f.object_type, f.object

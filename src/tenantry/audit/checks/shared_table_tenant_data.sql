-- Purpose: finds tables without the tenant column that row security does not keep apart, that hold what
--          is a tenant's and that the application may use: it shows the rows of all tenants.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with recursive
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t.attnum, t.is_root
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, attnum smallint, is_root boolean)
  ),
  shared as materialized (
    select s.oid::oid as oid, s.object, c.relname
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.shared_tables')::json)
      as s (oid bigint, object text)
    join pg_catalog.pg_class as c on c.oid = s.oid::oid
  ),
  key as materialized (
    select k.conrelid, k.confrelid, k.conkey
    from pg_catalog.pg_constraint as k
    where k.contype = 'f' and k.conrelid <> k.confrelid
  ),
  -- Whose rows refer to a tenant's rows, by way of any number of tables between.
  belonging (oid, parent) as (
    select key.conrelid, t.object
    from key join tenant_table as t on t.oid = key.confrelid
    where key.conrelid not in (select t.oid from tenant_table as t)
    union
    select key.conrelid, b.parent
    from belonging as b join key on key.confrelid = b.oid
    where key.conrelid not in (select t.oid from tenant_table as t)
  ),
  held (oid, priority, problem, remedy) as (
    select b.oid, 1,
           pg_catalog.format('its rows belong to rows of %s, and without %I and row security that tells '
             'tenants apart the application uses those of all tenants',
             pg_catalog.string_agg(b.parent, ', ' order by b.parent),
             pg_catalog.current_setting('tenantry.tenant_column')),
           'give the table the tenant column, fill it from the row that is referred to, and wall it off'
    from belonging as b
    group by b.oid
    union all
    select key.confrelid, 2,
           pg_catalog.format('%I of %s refers to it: it lists all tenants to each of them',
             pg_catalog.current_setting('tenantry.tenant_column'),
             pg_catalog.string_agg(distinct t.object, ', ')),
           'name it as the root table, root_table, and wall it off'
    from key join tenant_table as t on t.oid = key.conrelid and not t.is_root
    where t.attnum = any (key.conkey)
    group by key.confrelid
    union all
    select s.oid, 3,
           'its rows are the tasks or the results of all tenants: who reads it knows them, who writes it '
           'sets tasks in the name of any tenant',
           'revoke the grants: a broker and its results have a schema and a login of their own'
    from shared as s
    where s.relname in ('kombu_message', 'kombu_queue', 'celery_taskmeta', 'celery_tasksetmeta')
  ),
  first as (
    select distinct on (held.oid) held.* from held order by held.oid, held.priority
  )
select
  'shared_table_tenant_data' as check_id, 'error' as severity, 'table' as object_type, s.object,
  first.problem, first.remedy, null as statement
from first
join shared as s on s.oid = first.oid
where exists (
  select from holder
  where pg_catalog.has_table_privilege(holder.oid, s.oid, 'SELECT, INSERT, UPDATE, DELETE')
     or pg_catalog.has_any_column_privilege(holder.oid, s.oid, 'SELECT, INSERT, UPDATE'))
order by s.object

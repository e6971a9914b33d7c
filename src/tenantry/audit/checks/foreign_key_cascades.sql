-- Purpose: finds foreign keys of tenant tables that change the rows of all tenants that refer: CASCADE,
--          SET NULL, SET DEFAULT, without pairing tenant column with tenant column, or by way of a
--          shared table that the application may change. Row security does not hold what they do.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  shared as materialized (
    select s.oid::oid as oid, s.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.shared_tables')::json)
      as s (oid bigint, object text)
  ),
  -- The actions of all keys, in words.
  action as (
    select k.oid,
           case k.confdeltype when 'c' then 'ON DELETE CASCADE' when 'n' then 'ON DELETE SET NULL'
             when 'd' then 'ON DELETE SET DEFAULT' end as on_delete,
           case k.confupdtype when 'c' then 'ON UPDATE CASCADE' when 'n' then 'ON UPDATE SET NULL'
             when 'd' then 'ON UPDATE SET DEFAULT' end as on_update
    from pg_catalog.pg_constraint as k
    where k.contype = 'f'
  )
select
  'foreign_key_cascades' as check_id, 'error' as severity, 'foreign key' as object_type,
  f.object,
  pg_catalog.format(
    '%s, without pairing the tenant columns: what one tenant does to its row of %s changes rows of '
    'another that refer to it',
    pg_catalog.concat_ws(' and ', action.on_delete, action.on_update),
    k.confrelid::pg_catalog.regclass) as problem,
  'let the key refer by the tenant column and the id together, which takes a unique key of both'
    as remedy,
  case when k.confupdtype in ('a', 'r', 'c') then
    f.rebuilt
    || case k.confupdtype when 'c' then ' on update cascade' when 'r' then ' on update restrict'
         else '' end
    -- Of the columns that were set before, without the tenant column.
    || case k.confdeltype when 'c' then ' on delete cascade' when 'r' then ' on delete restrict'
         when 'n' then ' on delete set null (' || f.cleared || ')'
         when 'd' then ' on delete set default (' || f.cleared || ')' else '' end
    || f.deferred || ';' end as statement
from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.foreign_keys')::json)
  as f (oid bigint, object text, changes_rows boolean, rebuilt text, cleared text, deferred text)
join pg_catalog.pg_constraint as k on k.oid = f.oid::oid
join action on action.oid = k.oid
where f.changes_rows
union all
select
  'foreign_key_cascades', 'error', 'foreign key',
  pg_catalog.format('%I on %s', k.conname, t.object),
  pg_catalog.format(
    '%s, and the application may change %s, which all tenants share: what one does there changes the '
    'rows of all that refer to it',
    pg_catalog.concat_ws(' and ',
      case when granted.deletes then action.on_delete end,
      case when granted.updates then action.on_update end),
    s.object),
  'let the key refuse: ON DELETE RESTRICT; and leave the application SELECT on what is shared',
  null
from pg_catalog.pg_constraint as k
join action on action.oid = k.oid
join tenant_table as t on t.oid = k.conrelid
join shared as s on s.oid = k.confrelid
cross join lateral (
  select pg_catalog.bool_or(pg_catalog.has_table_privilege(holder.oid, s.oid, 'DELETE')) as deletes,
         pg_catalog.bool_or(pg_catalog.has_any_column_privilege(holder.oid, s.oid, 'UPDATE'))
           as updates
  from holder
) as granted
where k.contype = 'f' and k.conparentid = 0
  and (granted.deletes and action.on_delete is not null
       or granted.updates and action.on_update is not null)
order by 4

-- Purpose: finds foreign keys into tenant tables that do not pair tenant column with tenant column and
--          change the rows that refer: CASCADE, SET NULL, SET DEFAULT. Row security does not hold what
--          they do.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

select
  'foreign_key_cascades' as check_id, 'error' as severity, 'foreign key' as object_type,
  f.object,
  pg_catalog.format(
    '%s, without pairing the tenant columns: what one tenant does to its row of %s changes rows of '
    'another that refer to it',
    pg_catalog.concat_ws(' and ',
      case k.confdeltype when 'c' then 'ON DELETE CASCADE' when 'n' then 'ON DELETE SET NULL'
        when 'd' then 'ON DELETE SET DEFAULT' end,
      case k.confupdtype when 'c' then 'ON UPDATE CASCADE' when 'n' then 'ON UPDATE SET NULL'
        when 'd' then 'ON UPDATE SET DEFAULT' end),
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
where f.changes_rows
order by 4

-- Purpose: finds foreign keys of tenant tables that clear or replace the tenant column when the row
--          they refer to goes: SET NULL and SET DEFAULT without the columns that are meant.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint)
    where t.attnum is not null
  )
select
  'foreign_key_clears_tenant' as check_id, 'error' as severity, 'foreign key' as object_type,
  pg_catalog.format('%I on %s', k.conname, t.object) as object,
  pg_catalog.format('%s sets %I as well: the row leaves its tenant when the row of %s goes',
                    actions.names, t."column", k.confrelid::pg_catalog.regclass) as problem,
  case when k.confupdtype in ('n', 'd')
    then 'use NO ACTION or CASCADE for updates: they cannot name the columns to set'
    else 'name the columns to set, without the tenant column' end as remedy,
  case when k.confupdtype in ('a', 'r', 'c') and others.names is not null
    then pg_catalog.format('alter table %s drop constraint %I, add constraint %2$I %s;',
      t.object, k.conname,
      pg_catalog.regexp_replace(pg_catalog.pg_get_constraintdef(k.oid),
        '( ON DELETE SET (?:NULL|DEFAULT))(?: \(.*\))?((?: (?:NOT )?DEFERRABLE)?'
        '(?: INITIALLY DEFERRED)?(?: NOT ENFORCED| NOT VALID)?)$',
        '\1 (' || pg_catalog.replace(others.names, '\', '\\') || ')\2')) end as statement
from tenant_table as t
join pg_catalog.pg_constraint as k
  on k.conrelid = t.oid and k.contype = 'f' and k.conparentid = 0
join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = t.attnum
cross join lateral (
  select pg_catalog.concat_ws(' and ',
    case when t.attnum = any (coalesce(nullif(k.confdelsetcols, '{}'), k.conkey))
      then case k.confdeltype when 'n' then 'ON DELETE SET NULL'
                              when 'd' then 'ON DELETE SET DEFAULT' end end,
    case when t.attnum = any (k.conkey)
      then case k.confupdtype when 'n' then 'ON UPDATE SET NULL'
                              when 'd' then 'ON UPDATE SET DEFAULT' end end) as names
) as actions
cross join lateral (
  select pg_catalog.string_agg(pg_catalog.quote_ident(o.attname), ', ' order by o.attnum) as names
  from pg_catalog.pg_attribute as o
  where o.attrelid = t.oid and o.attnum <> t.attnum
    and o.attnum = any (coalesce(nullif(k.confdelsetcols, '{}'), k.conkey))
) as others
-- Where the column cannot be null, SET NULL is an error and nothing happens.
where actions.names like '%DEFAULT%' or actions.names <> '' and not a.attnotnull
order by 4

-- Purpose: finds a setting of the tenant that neither the database nor the application's roles define:
--          SHOW of it is an error until somebody has set it.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  setting as materialized (
    select s.name, s.starts,
           -- Part by part: current_user alone is a keyword.
           (select pg_catalog.string_agg(pg_catalog.quote_ident(part.name), '.'
                     order by part.position)
            from pg_catalog.string_to_table(s.name, '.') with ordinality as part (name, position))
             as quoted
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.settings')::json)
      as s (name text, starts text)
  )
select
  'setting_undefined' as check_id, 'note' as severity, 'setting' as object_type,
  setting.name as object,
  'not defined for this database: SHOW fails on a connection where nobody has set it, and aborts the '
  'transaction' as problem,
  'define it for the database, as '''', which stands for no tenant' as remedy,
  pg_catalog.format('alter database %I set %s = '''';', pg_catalog.current_database(),
                    setting.quoted) as statement
from setting
-- A value other than '' is setting_default's affair.
where coalesce(setting.starts, '') = ''
  and not exists (
    select from pg_catalog.pg_db_role_setting as s
    cross join lateral pg_catalog.unnest(s.setconfig) as entry
    left join pg_catalog.pg_database as d on d.oid = s.setdatabase
    where pg_catalog.lower(pg_catalog.split_part(entry, '=', 1)) = pg_catalog.lower(setting.name)
      and (s.setdatabase = 0 or d.datname = pg_catalog.current_database())
      and (s.setrole = 0 or s.setrole in (
        select j.runtime::oid
        from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
          as j (runtime bigint))))
order by setting.name

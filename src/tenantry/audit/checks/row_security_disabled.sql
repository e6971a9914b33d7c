-- Purpose: finds a stored row_security = off: it shows no row more, it turns each query that a policy
--          filters into an error.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct j.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
  )
select
  'row_security_disabled' as check_id, 'note' as severity, 'setting' as object_type,
  'row_security of ' || stored.place as object,
  pg_catalog.format('stored as %s: the application''s queries fail where they would be filtered',
                    stored.value) as problem,
  'reset it' as remedy,
  pg_catalog.format('alter %s reset row_security;', stored.place) as statement
from (
  select pg_catalog.substr(entry, 14) as value,
         case
           when s.setrole = 0 and s.setdatabase = 0 then 'role all'
           when s.setrole = 0 then pg_catalog.format('database %I', d.datname)
           when s.setdatabase = 0 then pg_catalog.format('role %I', r.rolname)
           else pg_catalog.format('role %I in database %I', r.rolname, d.datname) end as place
  from pg_catalog.pg_db_role_setting as s
  cross join lateral pg_catalog.unnest(s.setconfig) as entry
  left join pg_catalog.pg_roles as r on r.oid = s.setrole
  left join pg_catalog.pg_database as d on d.oid = s.setdatabase
  where pg_catalog.starts_with(entry, 'row_security=')
    and (s.setdatabase = 0 or d.datname = pg_catalog.current_database())
    and (s.setrole = 0 or s.setrole in (select runtime.oid from runtime))
) as stored
where not stored.value::boolean
order by 4

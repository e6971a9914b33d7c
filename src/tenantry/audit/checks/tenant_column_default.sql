-- Purpose: finds tenant columns whose default is something else than the tenant. None at all is fine:
--          a forgotten tenant is then an error.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum, t.is_root
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint, is_root boolean)
  ),
  defaulted as materialized (
    select t.object, t."column", a.attgenerated, a.attidentity, d.oid,
           pg_catalog.pg_get_expr(d.adbin, d.adrelid) as text
    from tenant_table as t
    join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = t.attnum
    left join pg_catalog.pg_attrdef as d on d.adrelid = t.oid and d.adnum = t.attnum
    -- The root's own id is a new tenant's, and made by whatever makes ids.
    where not t.is_root and (d.oid is not null or a.attidentity <> '')
  )
select
  'tenant_column_default' as check_id, 'warning' as severity, 'column' as object_type,
  pg_catalog.format('%I on %s', d."column", d.object) as object,
  case
    when d.attidentity <> '' then 'the tenant column is an identity: a row without a tenant becomes '
                                  'that of whoever has the number'
    else pg_catalog.format('the default is %s, not the tenant: a row that is written past row '
                           'security without a tenant is silently that one''s', d.text)
  end as problem,
  'let the default be the tenant that is set, or have none' as remedy,
  case when d.attidentity <> ''
    then pg_catalog.format('alter table %s alter column %I drop identity;', d.object, d."column")
    when d.attgenerated = ''
    then pg_catalog.format('alter table %s alter column %I set default %s;', d.object, d."column",
                           pg_catalog.current_setting('tenantry.expression')) end as statement
from defaulted as d
where d.attidentity <> ''
   or d.text !~ '^NULL(::|$)'
      and pg_catalog.strpos(pg_catalog.lower(d.text), pg_catalog.lower(pg_catalog.quote_literal(
            pg_catalog.current_setting('tenantry.organization_setting')))) = 0
      -- What a function of one's own returns its text does not tell; one that makes ids is the
      -- system's, and is not recorded as a dependency.
      and not exists (
        select from pg_catalog.pg_depend as u
        where u.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and u.objid = d.oid
          and u.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass)
order by d.object

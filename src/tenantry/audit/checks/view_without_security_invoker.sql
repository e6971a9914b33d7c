-- Purpose: finds what shows tenants' rows past row security and is granted to the application: views
--          that are not security_invoker, materialized views, foreign tables.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with recursive
  runtime as materialized (
    select distinct r.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint)
  ),
  relation as materialized (
    select c.oid, c.relkind, c.reloptions, pg_catalog.format('%I.%I', n.nspname, c.relname) as object,
           c.relkind = 'f' and exists (
             select from pg_catalog.pg_attribute as a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and a.attname = pg_catalog.current_setting('tenantry.tenant_column')) as is_far
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and (pg_catalog.current_setting('tenantry.schemas') = '{}'
           or n.nspname = any (pg_catalog.current_setting('tenantry.schemas')::text[]))
  ),
  shown_by as materialized (
    select d.refobjid as shown, rewrite.ev_class as shower
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_rewrite as rewrite on rewrite.oid = d.objid
    where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
      and rewrite.ev_class <> d.refobjid
  ),
  -- Views of a tenant table, and views of those, whether or not they keep the tenant column.
  showing (oid) as (
    select t.oid::oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
    union
    select relation.oid from relation where relation.is_far
    union
    select shown_by.shower from showing join shown_by on shown_by.shown = showing.oid
  )
select
  'view_without_security_invoker' as check_id, 'error' as severity,
  case r.relkind when 'v' then 'view' when 'm' then 'materialized view' else 'foreign table' end
    as object_type,
  r.object,
  case r.relkind
    when 'v' then 'a view without security_invoker shows what its owner may see'
    when 'm' then 'a materialized view has no row security, and is granted to the application'
    else 'a foreign table has no row security, and is granted to the application' end as problem,
  case r.relkind when 'v' then 'make the view security_invoker, at each level of nested views'
    else 'revoke the grants; give the application a view or a table with row security' end
    as remedy,
  case r.relkind when 'v'
    then pg_catalog.format('alter view %s set (security_invoker = true);', r.object) end
    as statement
from relation as r
join showing as s on s.oid = r.oid
where not (r.relkind = 'v' and exists (
    select from pg_catalog.pg_options_to_table(r.reloptions) as o
    where o.option_name = 'security_invoker' and o.option_value::boolean))
  and exists (
    select from runtime
    where pg_catalog.has_table_privilege(runtime.oid, r.oid, 'SELECT, INSERT, UPDATE, DELETE')
       or pg_catalog.has_any_column_privilege(runtime.oid, r.oid, 'SELECT, INSERT, UPDATE'))
order by r.object

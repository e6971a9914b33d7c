-- Purpose: finds what the application may use and may hold tenants' rows, though the catalogs do not
--          tell: foreign tables without the tenant column, materialized views of functions, and tables
--          whose column is called as the tenant column but for case and underscores.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with recursive
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  judged as materialized (
    select v.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.views')::json)
      as v (oid bigint)
  ),
  relation as materialized (
    select c.oid, c.relkind, pg_catalog.format('%I.%I', n.nspname, c.relname) as object,
           pg_catalog.current_setting('tenantry.schemas') = '{}'
           or n.nspname = any (pg_catalog.current_setting('tenantry.schemas')::text[]) as looked_at
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.oid >= 16384 and c.relpersistence <> 't'
  ),
  far as materialized (
    select r.oid from relation as r
    where r.relkind = 'f'
      and not exists (
        select from pg_catalog.pg_attribute as a
        where a.attrelid = r.oid and a.attnum > 0 and not a.attisdropped
          and a.attname = pg_catalog.current_setting('tenantry.tenant_column'))
  ),
  asking as materialized (
    select distinct w.ev_class as oid
    from pg_catalog.pg_depend as d
    join pg_catalog.pg_rewrite as w on w.oid = d.objid and w.ev_type = '1'
    where d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
      and d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
      and not exists (
        select from pg_catalog.pg_depend as member
        join pg_catalog.pg_extension as e on e.oid = member.refobjid
        where member.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
          and member.objid = d.refobjid and member.deptype = 'e'
          and member.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
          and e.extname <> 'dblink')
  ),
  -- By a view, by a rule, by inheritance.
  link as materialized (
    select d.refobjid as inner_oid, w.ev_class as outer_oid
    from pg_catalog.pg_rewrite as w
    join pg_catalog.pg_depend as d
      on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    where w.ev_class >= 16384 and w.ev_class <> d.refobjid
    union
    select i.inhrelid, i.inhparent from pg_catalog.pg_inherits as i
    where exists (select from far)
  ),
  source (oid, way) as (
    select far.oid, far.oid from far
    union
    select asking.oid, asking.oid from asking
    union
    select source.oid, link.outer_oid from source join link on link.inner_oid = source.way
  ),
  granted as materialized (
    select r.oid, r.relkind, r.object
    from relation as r
    where r.looked_at and r.oid in (select source.way from source)
      -- With the rights of who asks, who then needs a grant on what is within.
      and not (r.relkind = 'v' and exists (
        select from pg_catalog.pg_class as c
        cross join lateral pg_catalog.pg_options_to_table(c.reloptions) as o
        where c.oid = r.oid and o.option_name = 'security_invoker' and o.option_value::boolean))
      and exists (
        select from holder
        where pg_catalog.has_table_privilege(holder.oid, r.oid, 'SELECT, INSERT, UPDATE, DELETE')
           or pg_catalog.has_any_column_privilege(holder.oid, r.oid, 'SELECT, INSERT, UPDATE'))
  ),
  fault (object_type, object, problem, remedy) as (
    select 'foreign table', f.object,
           pg_catalog.format('the application reaches it by %s: a foreign table has no row security, '
                             'and without %I nothing tells whose rows it holds',
             pg_catalog.string_agg(g.object, ', ' order by g.object),
             pg_catalog.current_setting('tenantry.tenant_column')),
           'revoke the grants, or say in the baseline whose rows they are'
    from source
    join far on far.oid = source.oid
    join relation as f on f.oid = far.oid
    join granted as g on g.oid = source.way
    group by f.object
    union all
    select distinct 'materialized view', g.object,
           'it holds what functions returned to its owner, and is granted to the application: they may '
           'have read the rows of all tenants',
           'revoke the grants, or say in the baseline what it holds'
    from source
    join asking on asking.oid = source.oid
    join granted as g on g.oid = source.way
    where g.relkind = 'm' and g.oid not in (select judged.oid from judged)
    union all
    select 'table', s.object,
           pg_catalog.format('its column %I is called as the tenant column but for case and '
                             'underscores: the table is not judged as a tenant''s', a.attname),
           pg_catalog.format('call it %I and wall the table off',
                             pg_catalog.current_setting('tenantry.tenant_column'))
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.shared_tables')::json)
      as s (oid bigint, object text)
    join pg_catalog.pg_attribute as a
      on a.attrelid = s.oid::oid and a.attnum > 0 and not a.attisdropped
      and pg_catalog.replace(pg_catalog.lower(a.attname), '_', '')
          = pg_catalog.replace(pg_catalog.lower(
              pg_catalog.current_setting('tenantry.tenant_column')), '_', '')
    where exists (
      select from holder
      where pg_catalog.has_table_privilege(holder.oid, s.oid::oid, 'SELECT, INSERT, UPDATE, DELETE')
         or pg_catalog.has_any_column_privilege(holder.oid, s.oid::oid, 'SELECT, INSERT, UPDATE'))
  )
select
  'rows_unjudged' as check_id, 'warning' as severity, f.object_type, f.object, f.problem, f.remedy,
  null as statement
from fault as f
order by f.object_type, f.object

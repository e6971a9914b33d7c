-- Purpose: finds what shows tenants' rows past the row security of who asks: views that are not
--          security_invoker, materialized views, foreign tables with the tenant column; leaves them in
--          the setting tenantry.views, a JSON list of {oid, object, kind, owner, bound}. `kind` is a
--          relkind; `bound` says that a view's owner is held by the wall of each table that it reads.
-- Run by:  any role, in the audit's transaction, after facts/policies.sql.
-- Twice:   yes, it reads only.

with recursive
  tenant_table as materialized (
    select t.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
  ),
  -- Without the tenant column no policy of theirs tells tenants apart, and the children's do not apply.
  ancestor (oid) as (
    select i.inhparent
    from tenant_table as t join pg_catalog.pg_inherits as i on i.inhrelid = t.oid
    where i.inhparent not in (select t.oid from tenant_table as t)
    union
    select i.inhparent
    from ancestor join pg_catalog.pg_inherits as i on i.inhrelid = ancestor.oid
    where i.inhparent not in (select t.oid from tenant_table as t)
  ),
  relation as materialized (
    select c.oid, c.relkind, c.relowner, pg_catalog.format('%I.%I', n.nspname, c.relname) as object,
           c.relkind = 'v' and exists (
             select from pg_catalog.pg_options_to_table(c.reloptions) as o
             where o.option_name = 'security_invoker' and o.option_value::boolean) as is_invoker,
           c.relkind = 'f'
           and (pg_catalog.current_setting('tenantry.schemas') = '{}'
                or n.nspname = any (pg_catalog.current_setting('tenantry.schemas')::text[]))
           and exists (
             select from pg_catalog.pg_attribute as a
             where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
               and a.attname = pg_catalog.current_setting('tenantry.tenant_column')) as is_far
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('v', 'm', 'f') and c.oid >= 16384 and c.relpersistence <> 't'
  ),
  shown_by as materialized (
    select distinct d.refobjid as shown, w.ev_class as shower
    from pg_catalog.pg_rewrite as w
    join pg_catalog.pg_depend as d
      on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = w.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
    where w.ev_type = '1' and w.ev_class >= 16384 and w.ev_class <> d.refobjid
  ),
  -- Views of a tenant table, and views of those, whether or not they keep the tenant column, and in
  -- whatever schema they are.
  showing (oid) as (
    select t.oid from tenant_table as t
    union
    select ancestor.oid from ancestor
    union
    select r.oid from relation as r where r.is_far
    union
    select shown_by.shower from showing join shown_by on shown_by.shown = showing.oid
  ),
  -- What a view reads, and with whose rights: of what it shows by way of a further view that one's
  -- owner's, unless that one is security_invoker.
  reading (oid, reader, shown) as (
    select r.oid, r.relowner, r.oid
    from relation as r
    where r.relkind = 'v' and not r.is_invoker and r.oid in (select showing.oid from showing)
    union
    select reading.oid,
           case when inner_one.relkind = 'v' and not inner_one.is_invoker then inner_one.relowner
             else reading.reader end,
           shown_by.shown
    from reading
    join shown_by on shown_by.shower = reading.shown
    left join relation as inner_one on inner_one.oid = shown_by.shown
    where shown_by.shown in (select showing.oid from showing)
  ),
  wall as materialized (
    select p."table"::oid as table_oid, pg_catalog.bool_or(p.exact) as holds_all
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p ("table" bigint, permissive boolean, command text, to_public boolean, exact boolean,
            excepted boolean)
    where not p.permissive and p.command = 'all' and p.to_public and (p.exact or p.excepted)
      -- Without any view, the thousands that there may be are not unfolded.
      and exists (select from reading)
    group by p."table"
  ),
  unbound as materialized (
    select distinct reading.oid
    from reading
    join pg_catalog.pg_roles as o on o.oid = reading.reader
    join pg_catalog.pg_class as c on c.oid = reading.shown
    left join wall on wall.table_oid = c.oid
    where c.relkind in ('m', 'f')
       or c.oid in (select ancestor.oid from ancestor)
       or c.oid in (select t.oid from tenant_table as t)
          and (o.rolsuper or o.rolbypassrls or not c.relrowsecurity
               or not c.relforcerowsecurity
                  and pg_catalog.pg_has_role(o.oid, c.relowner, 'USAGE')
               or wall.table_oid is null
               or not wall.holds_all
                  and o.rolname = pg_catalog.current_setting('tenantry.authenticator_role'))
  )
select
where pg_catalog.set_config('tenantry.views',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', r.oid::bigint, 'object', r.object, 'kind', r.relkind,
            'owner', pg_catalog.pg_get_userbyid(r.relowner),
            'bound', r.relkind = 'v' and r.oid not in (select unbound.oid from unbound))
          order by r.object)::text, '[]')
   from relation as r
   where not r.is_invoker and r.oid in (select showing.oid from showing)),
  true) is null

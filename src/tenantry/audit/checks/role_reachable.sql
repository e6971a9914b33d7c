-- Purpose: finds roles that the application can become and that may do more with tables than it may
--          itself: the broker's, a reporting role, another application's.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  ),
  app as materialized (
    select r.oid from pg_catalog.pg_roles as r
    where r.rolname = pg_catalog.current_setting('tenantry.app_role')
  ),
  -- Whom other checks do not name.
  other as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
    where h.oid <> 0 and h.oid::oid not in (select reach.runtime from reach)
  ),
  -- Where the application's role holds privileges itself, what it inherits from another is that one's.
  -- Where it holds none, groups carry them, which is an ordinary way to give them.
  direct as materialized (
    select exists (
      select from pg_catalog.pg_class as c
      cross join lateral pg_catalog.aclexplode(c.relacl) as acl
      join app on app.oid = acl.grantee
      where c.relacl is not null) as is_usual
  ),
  -- What is theirs directly: what they have by way of a further role is found at that one. Who owns a
  -- relation alters and drops it, whatever the application may do with it too.
  listed as (
    select c.oid, c.relowner, c.relnamespace, c.relname, c.relacl as own_list, null as column_name,
           coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner)) as list
    from pg_catalog.pg_class as c
    where c.relkind in ('r', 'p', 'v', 'm', 'f') and c.oid >= 16384
      and c.relpersistence <> 't'
    union all
    select c.oid, c.relowner, c.relnamespace, c.relname, c.relacl, a.attname, a.attacl
    from pg_catalog.pg_attribute as a
    join pg_catalog.pg_class as c on c.oid = a.attrelid
    where a.attacl is not null and not a.attisdropped and c.oid >= 16384
      and c.relkind in ('r', 'p', 'v', 'm', 'f') and c.relpersistence <> 't'
  ),
  beyond as (
    select o.oid, o.grantee, pg_catalog.format('%I.%I', n.nspname, l.relname) as object,
           pg_catalog.string_agg(distinct acl.privilege_type
             || coalesce(' (' || pg_catalog.quote_ident(l.column_name) || ')', ''), ', ')
             as privileges
    from listed as l
    join pg_catalog.pg_namespace as n on n.oid = l.relnamespace
    cross join lateral pg_catalog.aclexplode(l.list) as acl
    join other as o on o.oid = acl.grantee
    cross join app
    cross join direct
    where acl.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES',
                                 'TRIGGER')
      and (l.relowner = o.oid
           or case
             when direct.is_usual then
               not exists (
                 select from pg_catalog.aclexplode(l.own_list) as own
                 where own.grantee in (app.oid, 0) and own.privilege_type = acl.privilege_type)
               and not exists (
                 select from pg_catalog.aclexplode(l.list) as own
                 where own.grantee in (app.oid, 0) and own.privilege_type = acl.privilege_type)
             when l.column_name is null
               then not pg_catalog.has_table_privilege(app.oid, l.oid, acl.privilege_type)
             else not pg_catalog.has_column_privilege(app.oid, l.oid, l.column_name,
                                                      acl.privilege_type)
           end)
    group by o.oid, o.grantee, n.nspname, l.relname
  ),
  gathered as (
    select b.oid, b.grantee, pg_catalog.count(*) as tables,
           (pg_catalog.array_agg(b.privileges || ' on ' || b.object order by b.object))[1] as first
    from beyond as b
    group by b.oid, b.grantee
  )
select
  'role_reachable' as check_id, 'warning' as severity, 'role' as object_type,
  pg_catalog.quote_ident(r.rolname) as object,
  pg_catalog.format('acts as the application and can become %s, which has %s%s', g.grantee, g.first,
    case when g.tables > 1 then pg_catalog.format(' and more on %s others', g.tables - 1) end)
    as problem,
  'end the membership' as remedy,
  (select m.statement
   from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.memberships')::json)
     as m (runtime bigint, role bigint, target bigint, statement text)
   where m.role = m.target and m.role = g.oid::bigint and m.runtime = r.oid::bigint) as statement
from gathered as g
join reach on reach.target = g.oid
join pg_catalog.pg_roles as r on r.oid = reach.runtime
order by r.rolname, g.grantee

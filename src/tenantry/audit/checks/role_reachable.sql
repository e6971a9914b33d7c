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
  -- What is theirs directly: what they have by way of a further role is found at that one.
  beyond as (
    select o.oid, o.grantee, pg_catalog.format('%I.%I', n.nspname, c.relname) as object,
           pg_catalog.string_agg(acl.privilege_type, ', ' order by acl.privilege_type) as privileges
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    cross join lateral pg_catalog.aclexplode(
      coalesce(c.relacl, pg_catalog.acldefault('r', c.relowner))) as acl
    join other as o on o.oid = acl.grantee
    cross join app
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and acl.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES',
                                 'TRIGGER')
      and not pg_catalog.has_table_privilege(app.oid, c.oid, acl.privilege_type)
    group by o.oid, o.grantee, n.nspname, c.relname
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
  case when exists (select from pg_catalog.pg_auth_members as m
                    where m.roleid = g.oid and m.member = r.oid)
    then pg_catalog.format('revoke %s from %I;', g.grantee, r.rolname) end as statement
from gathered as g
join reach on reach.target = g.oid
join pg_catalog.pg_roles as r on r.oid = reach.runtime
order by r.rolname, g.grantee

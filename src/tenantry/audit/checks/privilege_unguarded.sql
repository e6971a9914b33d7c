-- Purpose: finds privileges on tenant tables that row security does not cover, held by a role that
--          acts as the application, or that it can become: TRUNCATE, REFERENCES, TRIGGER.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select r.oid, r.rolname, r.rolname = pg_catalog.current_setting('tenantry.app_role') as is_app_role
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    join pg_catalog.pg_roles as r on r.oid = h.oid::oid
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, exposed boolean)
    where t.exposed
  ),
  held as materialized (
    select t.oid, t.object, c.relowner, runtime.oid as role_oid, runtime.rolname,
           runtime.is_app_role, privilege.name
    from tenant_table as t
    join pg_catalog.pg_class as c on c.oid = t.oid
    cross join runtime
    cross join (values ('TRUNCATE'), ('REFERENCES'), ('TRIGGER')) as privilege (name)
    where case when privilege.name = 'REFERENCES'
            then pg_catalog.has_any_column_privilege(runtime.oid, t.oid, privilege.name)
            else pg_catalog.has_table_privilege(runtime.oid, t.oid, privilege.name) end
      -- Who is, or is a member of, the owner has all of them: table_owner_reachable says so.
      and not pg_catalog.pg_has_role(runtime.oid, c.relowner, 'USAGE')
  ),
  -- What the role has its logins have: they are named for what they have beyond it.
  beyond as materialized (
    select h.oid, h.object, h.role_oid, h.rolname,
           pg_catalog.string_agg(h.name, ', ' order by h.name) as names
    from held as h
    where h.is_app_role
       or not exists (select from held as a
                      where a.oid = h.oid and a.name = h.name and a.is_app_role)
    group by h.oid, h.object, h.role_oid, h.rolname
  )
select
  'privilege_unguarded' as check_id, 'error' as severity, 'table' as object_type, b.object,
  pg_catalog.format('%I has %s, which row security does not cover', b.rolname, b.names) as problem,
  'revoke all but SELECT, INSERT, UPDATE and DELETE' as remedy,
  pg_catalog.format('revoke %s on table %s from %s;', b.names, b.object, source.grantees)
    as statement
from beyond as b
join pg_catalog.pg_class as c on c.oid = b.oid
left join lateral (
  -- From whom: the role itself, PUBLIC, or a role that it inherits from.
  select pg_catalog.string_agg(distinct
           case when acl.grantee = 0 then 'public'
             else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end, ', ')
           as grantees
  from (select c.relacl as list
        union all
        select a.attacl from pg_catalog.pg_attribute as a
        where a.attrelid = b.oid and a.attacl is not null and not a.attisdropped) as lists
  cross join lateral pg_catalog.aclexplode(lists.list) as acl
  where acl.privilege_type in ('TRUNCATE', 'REFERENCES', 'TRIGGER')
    and (acl.grantee = 0 or pg_catalog.pg_has_role(b.role_oid, acl.grantee, 'USAGE'))
) as source on true
order by b.object, b.rolname

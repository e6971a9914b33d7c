-- Purpose: finds tables without the tenant column that the application may write: what one tenant
--          writes there all the others read.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.oid, r.rolname
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
    where not r.rolsuper
  ),
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
  ),
  shared as materialized (
    select c.oid, c.relowner, c.relacl, pg_catalog.format('%I.%I', n.nspname, c.relname) as object
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and (pg_catalog.current_setting('tenantry.schemas') = '{}'
           or n.nspname = any (pg_catalog.current_setting('tenantry.schemas')::text[]))
      -- With row security of its own a table may be a tenant's by its parent.
      and not (c.relrowsecurity and c.relforcerowsecurity)
      and c.oid not in (select t.oid from tenant_table as t)
  )
select
  'shared_table_writable' as check_id, 'warning' as severity, 'table' as object_type, s.object,
  pg_catalog.format('%s may write it, and it has no %I: each tenant changes what all of them read',
    who.names, pg_catalog.current_setting('tenantry.tenant_column')) as problem,
  'leave the application SELECT; or give the table the tenant column and row security' as remedy,
  pg_catalog.format('revoke insert, update, delete, truncate on table %s from %s;', s.object,
                    source.grantees) as statement
from shared as s
cross join lateral (
  select pg_catalog.string_agg(pg_catalog.quote_ident(runtime.rolname), ', '
                               order by runtime.rolname) as names
  from runtime
  where s.relowner <> runtime.oid
    and (pg_catalog.has_table_privilege(runtime.oid, s.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
         or pg_catalog.has_any_column_privilege(runtime.oid, s.oid, 'INSERT, UPDATE'))
) as who
left join lateral (
  select pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
  from (select s.relacl as list
        union all
        select a.attacl from pg_catalog.pg_attribute as a
        where a.attrelid = s.oid and a.attacl is not null and not a.attisdropped) as lists
  cross join lateral pg_catalog.aclexplode(lists.list) as acl
  join holder as h on h.oid = acl.grantee
  where acl.privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE')
) as source on true
where who.names is not null
order by s.object

-- Purpose: finds who may read or rewrite the log of what was done past the wall: the application reads
--          nothing of it, and whom it watches only adds to it.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
  ),
  -- By its columns it is told from another log of that name.
  log as materialized (
    select c.oid, c.relowner, c.relacl, pg_catalog.format('%I.%I', n.nspname, c.relname) as object
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relname = 'maintenance_log' and c.relkind in ('r', 'p') and c.relpersistence <> 't'
      and (select pg_catalog.count(*) from pg_catalog.pg_attribute as a
           where a.attrelid = c.oid and not a.attisdropped
             and a.attname in ('actor', 'reason')) = 2
      and c.oid not in (
        select t.oid::oid
        from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
          as t (oid bigint))
  ),
  listed as (
    select l.oid, l.object, l.relowner, l.relacl as list from log as l
    union all
    select l.oid, l.object, l.relowner, a.attacl
    from log as l
    join pg_catalog.pg_attribute as a
      on a.attrelid = l.oid and a.attacl is not null and not a.attisdropped
  ),
  given as (
    select l.object, acl.grantee,
           case when acl.grantee = 0 then 'public'
             else pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(acl.grantee)) end as name,
           pg_catalog.string_agg(distinct acl.privilege_type, ', ') as privileges
    from listed as l
    cross join lateral pg_catalog.aclexplode(l.list) as acl
    where acl.grantee <> l.relowner
      and (acl.privilege_type in ('UPDATE', 'DELETE', 'TRUNCATE', 'TRIGGER')
           or acl.privilege_type = 'SELECT' and acl.grantee in (select holder.oid from holder))
    group by l.object, acl.grantee
  )
select
  'maintenance_log_open' as check_id, 'warning' as severity, 'table' as object_type, g.object,
  pg_catalog.format('%s: the log of what was done past the wall is for nobody of the application to '
                    'read and for nobody to rewrite',
    pg_catalog.string_agg(g.name || ' has ' || g.privileges, '; ' order by g.name)) as problem,
  'leave the maintenance role INSERT, and an auditor of your own SELECT' as remedy,
  pg_catalog.string_agg(
    pg_catalog.format('revoke %s on table %s from %s;', g.privileges, g.object, g.name), ' '
    order by g.name) as statement
from given as g
group by g.object
order by g.object

-- Purpose: finds tables without the tenant column that tenant tables inherit from and that the
--          application may use: by way of the parent the children's own policies do not apply.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with recursive
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  ancestor (oid, child) as (
    select i.inhparent, t.object
    from tenant_table as t join pg_catalog.pg_inherits as i on i.inhrelid = t.oid
    union
    select i.inhparent, ancestor.child
    from ancestor join pg_catalog.pg_inherits as i on i.inhrelid = ancestor.oid
  )
select
  'inheritance_parent_exposed' as check_id, 'error' as severity, 'table' as object_type,
  pg_catalog.format('%I.%I', n.nspname, c.relname) as object,
  pg_catalog.format('it reaches the rows of all tenants of %s, which inherit from it: their policies '
                    'do not apply to a query of the parent, and TRUNCATE of it empties them',
                    pg_catalog.string_agg(ancestor.child, ', ' order by ancestor.child)) as problem,
  'revoke the grants on the parent, or end the inheritance' as remedy,
  null as statement
from ancestor
join pg_catalog.pg_class as c on c.oid = ancestor.oid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
-- A parent with the tenant column is a tenant table, and judged as one.
where c.oid not in (select t.oid from tenant_table as t)
  -- With row security and without a policy for it, it shows nothing; TRUNCATE asks no policy.
  and (not c.relrowsecurity
       or exists (select from holder
                  where pg_catalog.has_table_privilege(holder.oid, c.oid, 'TRUNCATE'))
       or exists (select from pg_catalog.pg_policy as p
                  where p.polrelid = c.oid and p.polpermissive))
  and exists (
    select from holder
    where pg_catalog.has_table_privilege(holder.oid, c.oid,
            'SELECT, UPDATE, DELETE, TRUNCATE')
       or pg_catalog.has_any_column_privilege(holder.oid, c.oid, 'SELECT, UPDATE'))
group by n.nspname, c.relname
order by 4

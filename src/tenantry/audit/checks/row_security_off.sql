-- Purpose: finds tenant tables on which row security is not enabled, or not forced on the owner.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t.is_partition, t.exposed
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, is_partition boolean, exposed boolean)
  )
select
  'row_security_off' as check_id, 'error' as severity, 'table' as object_type, t.object,
  case
    when c.relrowsecurity then 'row security is not forced: it does not bind the owner'
    when exists (select from pg_catalog.pg_policy as p where p.polrelid = t.oid)
      then 'row security is off: the policies on the table have no effect'
    else 'row security is off: every role with a grant sees the rows of all tenants'
  end as problem,
  'enable row security and force it; without policies a table then shows no row at all' as remedy,
  pg_catalog.format('alter table %s enable row level security, force row level security;',
                    t.object) as statement
from tenant_table as t
join pg_catalog.pg_class as c on c.oid = t.oid
where not (c.relrowsecurity and c.relforcerowsecurity)
  -- A partition that the application has no grant on is reached through its parent alone.
  and (t.exposed or not t.is_partition)
order by t.object

-- Purpose: finds owners of tenant tables whose next function everybody may execute.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  owner as materialized (
    select distinct c.relowner as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
    -- Whom the application can become table_owner_reachable names.
    where c.relowner not in (
      select r.target::oid
      from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
        as r (target bigint))
  )
select
  'function_execute_public' as check_id, 'note' as severity, 'role' as object_type,
  pg_catalog.quote_ident(r.rolname) as object,
  'owns tenant tables, and PUBLIC may execute each function that it creates' as problem,
  'take EXECUTE from PUBLIC in its default privileges, and grant it function by function' as remedy,
  pg_catalog.format('alter default privileges for role %I revoke execute on functions from public;',
                    r.rolname) as statement
from owner
join pg_catalog.pg_roles as r on r.oid = owner.oid
where not exists (
  select from pg_catalog.pg_default_acl as d
  where d.defaclrole = r.oid and d.defaclnamespace = 0 and d.defaclobjtype = 'f'
    and not exists (select from pg_catalog.aclexplode(d.defaclacl) as acl
                    where acl.grantee = 0 and acl.privilege_type = 'EXECUTE'))
order by r.rolname

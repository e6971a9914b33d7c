-- Purpose: finds settings of the superuser's that the application may change: for the whole server, or
--          for its session where they switch checks off or load code.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  granted as (
    select p.parname,
           pg_catalog.string_agg(distinct h.grantee, ', ') as grantees,
           pg_catalog.string_agg(distinct acl.privilege_type, ', ') as privileges
    from pg_catalog.pg_parameter_acl as p
    cross join lateral pg_catalog.aclexplode(p.paracl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.privilege_type = 'ALTER SYSTEM'
       or p.parname in ('session_replication_role', 'lo_compat_privileges', 'dynamic_library_path',
                        'session_preload_libraries', 'allow_system_table_mods')
    group by p.parname
  )
select
  'parameter_granted' as check_id, 'error' as severity, 'setting' as object_type,
  g.parname as object,
  pg_catalog.format('%s may change it (%s)', g.grantees, g.privileges) as problem,
  'revoke it: each of these settings is kept for superusers with reason' as remedy,
  pg_catalog.format('revoke %s on parameter %s from %s;', g.privileges,
    -- Part by part: current_user alone is a keyword.
    (select pg_catalog.string_agg(pg_catalog.quote_ident(part.name), '.' order by part.position)
     from pg_catalog.string_to_table(g.parname, '.') with ordinality as part (name, position)),
    g.grantees) as statement
from granted as g
order by g.parname

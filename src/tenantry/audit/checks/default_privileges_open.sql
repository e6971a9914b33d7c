-- Purpose: finds default privileges that open the next table, sequence, function or schema to
--          everybody, or give the application what row security does not cover.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  given as (
    select d.defaclrole, d.defaclnamespace, d.defaclobjtype, h.grantee,
           pg_catalog.string_agg(acl.privilege_type, ', ' order by acl.privilege_type) as privileges
    from pg_catalog.pg_default_acl as d
    cross join lateral pg_catalog.aclexplode(d.defaclacl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.grantee <> d.defaclrole
      and case
        when acl.grantee <> 0
          then d.defaclobjtype in ('r', 'n')
               and acl.privilege_type not in ('SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE')
               -- An INSERT needs USAGE on a sequence and nothing else.
               or d.defaclobjtype = 'S' and acl.privilege_type <> 'USAGE'
        -- An entry for all schemas repeats what is built in, and PUBLIC's EXECUTE on functions and
        -- USAGE on types are; one for a schema adds to it.
        when d.defaclobjtype = 'f' then d.defaclnamespace <> 0
        else d.defaclobjtype <> 'T' end
    group by d.defaclrole, d.defaclnamespace, d.defaclobjtype, h.grantee
  )
select
  'default_privileges_open' as check_id, 'warning' as severity, 'default privileges' as object_type,
  pg_catalog.format('%s of %I%s', kind.name, r.rolname,
    ' in ' || pg_catalog.quote_ident(n.nspname)) as object,
  pg_catalog.format('the next one gives %s to %s', g.privileges, g.grantee) as problem,
  'take it out of the default privileges, and grant on each table what it needs' as remedy,
  pg_catalog.format('alter default privileges for role %I%s revoke %s on %s from %s;', r.rolname,
    ' in schema ' || pg_catalog.quote_ident(n.nspname), g.privileges, kind.name, g.grantee) as statement
from given as g
join pg_catalog.pg_roles as r on r.oid = g.defaclrole
left join pg_catalog.pg_namespace as n on n.oid = g.defaclnamespace
cross join lateral (
  select case g.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences'
    when 'f' then 'functions' when 'n' then 'schemas' when 'L' then 'large objects' end as name
) as kind
order by r.rolname, n.nspname, kind.name, g.grantee

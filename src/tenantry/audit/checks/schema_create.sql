-- Purpose: finds schemas and databases in which the application, or everybody, may create: there
--          functions, operators and tables are planted under names that others use.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  opened (object_type, object, grantee) as (
    select 'schema', pg_catalog.quote_ident(n.nspname), h.grantee
    from pg_catalog.pg_namespace as n
    cross join lateral pg_catalog.aclexplode(n.nspacl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.privilege_type = 'CREATE' and acl.grantee <> n.nspowner
      and n.nspname !~ '^pg_(temp|toast)'
    union
    select 'database', pg_catalog.quote_ident(d.datname), h.grantee
    from pg_catalog.pg_database as d
    cross join lateral pg_catalog.aclexplode(d.datacl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.privilege_type = 'CREATE' and acl.grantee <> d.datdba
      and d.datname = pg_catalog.current_database()
  ),
  gathered as (
    select o.object_type, o.object,
           pg_catalog.string_agg(o.grantee, ', ' order by o.grantee) as grantees
    from opened as o
    group by o.object_type, o.object
  )
select
  'schema_create' as check_id, 'warning' as severity, g.object_type, g.object,
  pg_catalog.format('%s may create %s in it', g.grantees,
    case g.object_type when 'schema' then 'functions, operators and tables' else 'schemas' end)
    as problem,
  'revoke CREATE: the owner alone creates' as remedy,
  pg_catalog.format('revoke create on %s %s from %s;', g.object_type, g.object, g.grantees)
    as statement
from gathered as g
order by g.object_type, g.object

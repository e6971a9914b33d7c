-- Purpose: finds that every role of the server may connect to the database.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

select
  'database_connect_public' as check_id, 'note' as severity, 'database' as object_type,
  pg_catalog.quote_ident(d.datname) as object,
  'every login of the server may connect: what is granted to PUBLIC is then granted to all of them'
    as problem,
  'grant CONNECT to the logins that need it, then revoke it from PUBLIC' as remedy,
  -- Which logins those are, the catalogs do not tell.
  null as statement
from pg_catalog.pg_database as d
cross join lateral pg_catalog.aclexplode(
  coalesce(d.datacl, pg_catalog.acldefault('d', d.datdba))) as acl
where d.datname = pg_catalog.current_database() and acl.privilege_type = 'CONNECT'
  and acl.grantee = 0

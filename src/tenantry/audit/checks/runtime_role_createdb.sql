-- Purpose: finds roles that act as the application and may create databases: in one of its own a role
--          has the functions that were taken from PUBLIC in this one.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

select distinct
  'runtime_role_createdb' as check_id, 'warning' as severity, 'role' as object_type,
  pg_catalog.quote_ident(g.rolname) as object,
  'the application can be it, and it has CREATEDB: from a database of its own it sees and ends the '
  'sessions of this one' as problem,
  'take the attribute away' as remedy,
  pg_catalog.format('alter role %I nocreatedb;', g.rolname) as statement
from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
  as h (oid bigint)
join pg_catalog.pg_roles as g on g.oid = h.oid::oid
where g.rolcreatedb
order by 4

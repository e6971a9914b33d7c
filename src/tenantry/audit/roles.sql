-- Purpose: lists the roles that act as the application, what they are, and what they can become. A
--          listing, no check.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  )
select
  pg_catalog.quote_ident(r.rolname) as role,
  pg_catalog.concat_ws(', ',
    case when r.rolcanlogin then 'login' else 'no login' end,
    case when r.rolsuper then 'superuser' end,
    case when r.rolbypassrls then 'BYPASSRLS' end,
    case when r.rolcreaterole then 'CREATEROLE' end,
    case when r.rolcreatedb then 'CREATEDB' end,
    case when r.rolreplication then 'REPLICATION' end) as attributes,
  coalesce((
    select pg_catalog.string_agg(pg_catalog.quote_ident(other.rolname), ', ' order by other.rolname)
    from reach
    join pg_catalog.pg_roles as other on other.oid = reach.target
    where reach.runtime = r.oid and reach.target <> r.oid), '') as can_become
from pg_catalog.pg_roles as r
where r.oid in (select reach.runtime from reach)
order by r.rolcanlogin, r.rolname

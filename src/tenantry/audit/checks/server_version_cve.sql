-- Purpose: finds a server whose minor version has a known hole in row security, or beside it.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  server as materialized (
    select pg_catalog.current_setting('server_version_num')::integer as version
  ),
  -- The version of each major that mends it. A major that is not named here never had it, or is older
  -- than the audit.
  hole (cve, mended, what) as (
    values
      ('CVE-2023-2455', '{150003}'::integer[],
       'a policy is applied for the wrong role once a function is inlined'),
      ('CVE-2023-39418', '{150004}', 'MERGE does not enforce the policies of UPDATE and SELECT'),
      ('CVE-2024-4317', '{150007,160003}', 'extended statistics show other roles'' values'),
      ('CVE-2024-10976', '{150009,160005,170001}',
       'a policy below a sub-query, WITH or a function is applied for the wrong role'),
      ('CVE-2024-10978', '{150009,160005,170001}', 'SET ROLE is reset to the wrong role'),
      ('CVE-2025-8713', '{150014,160010,170006}',
       'the planner''s statistics of partitions show values that a policy hides'),
      ('CVE-2026-14666', '{150019,160015,170011,180006}',
       'a cached plan keeps a role''s policies after its memberships have changed')
  ),
  open_hole as (
    select h.cve, h.what, mended.version
    from hole as h
    cross join server
    cross join lateral pg_catalog.unnest(h.mended) as mended (version)
    where mended.version / 10000 = server.version / 10000 and server.version < mended.version
  )
select
  'server_version_cve' as check_id, 'warning' as severity, 'server' as object_type,
  pg_catalog.format('PostgreSQL %s.%s', server.version / 10000, server.version % 10000) as object,
  pg_catalog.string_agg(o.cve || ': ' || o.what, '; ' order by o.cve) as problem,
  pg_catalog.format('install the newest minor version, %s.%s at least: it takes a restart alone',
    server.version / 10000, pg_catalog.max(o.version) % 10000) as remedy,
  null as statement
from open_hole as o cross join server
group by server.version

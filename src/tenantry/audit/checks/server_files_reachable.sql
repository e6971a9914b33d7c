-- Purpose: finds functions that read or write the server's files, or the pages of tables and of the
--          log, and that the application may execute: all tenants' rows are in those.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  -- By the code that runs: a name may be any. The server has thousands of functions, so that what is
  -- cheap to ask is asked first.
  reader as materialized (
    select p.oid, p.proacl, p.proowner
    from pg_catalog.pg_proc as p
    where p.prolang = (select l.oid from pg_catalog.pg_language as l where l.lanname = 'internal')
      -- pg_read_file by itself is PostgreSQL 15's for adminpack, and asks for a superuser.
      and (p.prosrc like 'pg\_%'
           and p.prosrc ~ '^pg_(read_file_|read_binary_file|ls_dir|stat_file)'
           or p.prosrc in ('be_lo_import', 'be_lo_import_with_oid', 'be_lo_export',
                           'pg_hba_file_rules', 'pg_ident_file_mappings',
                           'show_all_file_settings'))
    union all
    -- Of adminpack, of pg_walinspect, and of pageinspect.
    select p.oid, p.proacl, p.proowner
    from pg_catalog.pg_proc as p
    where p.prolang = (select l.oid from pg_catalog.pg_language as l where l.lanname = 'c')
      and p.prosrc ~ '^(pg_file_(write|rename|unlink)|pg_get_wal_(block|fpi)_info|get_raw_page)'
  ),
  opened as (
    select p.oid::pg_catalog.regprocedure::text as name,
           pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from reader as p
    cross join lateral pg_catalog.aclexplode(
      coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as acl
    join holder as h on h.oid = acl.grantee
    group by p.oid
  )
select
  'server_files_reachable' as check_id, 'error' as severity, 'function' as object_type,
  o.name as object,
  pg_catalog.format('%s may execute it: all tenants'' rows are in the server''s files', o.grantees)
    as problem,
  'revoke EXECUTE' as remedy,
  pg_catalog.format('revoke execute on function %s from %s;', o.name, o.grantees) as statement
from opened as o
order by o.name

-- Purpose: finds system catalogs that hold rows' values or secrets, and that the application may read:
--          statistics, large objects, passwords.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  secret (name, holds) as (
    values
      ('pg_statistic', 'the most common values and the histograms of all tenants'' rows'),
      ('pg_statistic_ext_data', 'the most common values of all tenants'' rows'),
      ('pg_largeobject', 'the large objects of all tenants'),
      ('pg_authid', 'the passwords of all roles'),
      ('pg_shadow', 'the passwords of all logins'),
      ('pg_subscription', 'passwords of other servers'),
      ('pg_user_mapping', 'passwords of other servers')
  ),
  listed as (
    select s.name, s.holds, c.relacl as list
    from secret as s
    join pg_catalog.pg_class as c
      on c.relname = s.name and c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
    union all
    select s.name, s.holds, a.attacl
    from secret as s
    join pg_catalog.pg_class as c
      on c.relname = s.name and c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attacl is not null
    -- All its columns but the one with the password are everybody's.
    where s.name <> 'pg_subscription'
  ),
  opened as (
    select l.name, l.holds, pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from listed as l
    cross join lateral pg_catalog.aclexplode(l.list) as acl
    join holder as h on h.oid = acl.grantee
    where acl.privilege_type = 'SELECT'
    group by l.name, l.holds
  )
select
  'catalog_readable' as check_id, 'error' as severity, 'table' as object_type,
  'pg_catalog.' || o.name as object,
  pg_catalog.format('%s may read it: it holds %s', o.grantees, o.holds) as problem,
  'revoke SELECT; pg_stats shows each role what row security lets it see' as remedy,
  pg_catalog.format('revoke select on pg_catalog.%I from %s;', o.name, o.grantees) as statement
from opened as o
order by o.name

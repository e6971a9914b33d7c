-- Purpose: finds privileges on the sequences of tenant tables that an INSERT does not need: they tell
--          how much the other tenants write, and let one tenant break the others' keys.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
  ),
  sequence as (
    -- Owned by a column, as those of serial and identity columns are ...
    select d.objid as oid, t.object, false as needed
    from tenant_table as t
    join pg_catalog.pg_depend as d
      on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = t.oid
      and d.refobjsubid > 0 and d.deptype in ('a', 'i')
      and d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass
    union all
    -- ... or called by a default, for which an INSERT needs USAGE.
    select d.refobjid, t.object, true
    from tenant_table as t
    join pg_catalog.pg_attrdef as a on a.adrelid = t.oid
    join pg_catalog.pg_depend as d
      on d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass and d.objid = a.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
  ),
  of_tenants as (
    select s.oid, pg_catalog.bool_or(s.needed) as needed,
           pg_catalog.string_agg(distinct s.object, ', ') as tables
    from sequence as s group by s.oid
  ),
  held as (
    select c.oid, n.nspname, c.relname, s.tables,
           pg_catalog.string_agg(distinct acl.privilege_type, ', ') as names,
           pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from of_tenants as s
    join pg_catalog.pg_class as c on c.oid = s.oid and c.relkind = 'S'
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    cross join lateral pg_catalog.aclexplode(c.relacl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.grantee <> c.relowner
      and (acl.privilege_type in ('SELECT', 'UPDATE')
           or acl.privilege_type = 'USAGE' and not s.needed)
    group by c.oid, n.nspname, c.relname, s.tables
  )
select
  'sequence_exposed' as check_id, 'warning' as severity, 'sequence' as object_type,
  pg_catalog.format('%I.%I', h.nspname, h.relname) as object,
  pg_catalog.format('%s has %s on the sequence of %s: it %s', h.grantees, h.names, h.tables,
    case when h.names ~ 'UPDATE' then 'tells how much all tenants write, and setval breaks their keys'
      else 'tells how much all tenants write' end) as problem,
  'revoke them: a serial column needs USAGE, an identity column nothing' as remedy,
  pg_catalog.format('revoke %s on sequence %I.%I from %s;', h.names, h.nspname, h.relname, h.grantees)
    as statement
from held as h
order by 4

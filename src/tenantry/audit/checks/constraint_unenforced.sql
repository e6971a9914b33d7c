-- Purpose: finds constraints that hold the tenant column and are not enforced: NOT VALID, NOT ENFORCED,
--          foreign keys whose triggers are disabled.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t.attnum
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, attnum smallint)
    where t.attnum is not null
  ),
  held as materialized (
    select k.oid, k.conname, k.contype, t.object, k.convalidated, k.conparentid,
           -- A column of PostgreSQL 18 and later.
           case when not k.convalidated
             then coalesce((pg_catalog.to_jsonb(k) ->> 'conenforced')::boolean, true) end as enforced
    from tenant_table as t
    join pg_catalog.pg_constraint as k
      on k.conrelid = t.oid and t.attnum = any (k.conkey) and k.contype in ('c', 'f', 'n')
  ),
  -- Of a key from and of one into the table, which check what is written here and deleted there.
  disabled as materialized (
    select g.tgconstraint as oid,
           pg_catalog.string_agg(
             pg_catalog.format('alter table %s enable trigger %I;', g.tgrelid::pg_catalog.regclass,
                               g.tgname), ' ' order by g.tgname) as statement
    from pg_catalog.pg_trigger as g
    where g.tgenabled in ('D', 'R') and g.tgisinternal and g.tgconstraint <> 0
    group by g.tgconstraint
  )
select
  'constraint_unenforced' as check_id, 'warning' as severity,
  case h.contype when 'f' then 'foreign key' when 'n' then 'not-null constraint'
    else 'check constraint' end as object_type,
  pg_catalog.format('%I on %s', h.conname, h.object) as object,
  case
    when d.oid is not null then 'its triggers are disabled: nothing checks that a row refers to a row '
                                'of its own tenant'
    when not h.enforced then 'it is NOT ENFORCED, and checks nothing'
    else 'it is NOT VALID: rows from before may break it' end as problem,
  'enforce it, and validate it against the rows that are there' as remedy,
  case
    when d.oid is not null then d.statement
    when h.enforced
      then pg_catalog.format('alter table %s validate constraint %I;', h.object, h.conname)
    -- Of the others, PostgreSQL 18 can enforce foreign keys alone.
    when h.contype = 'f'
      then pg_catalog.format('alter table %s alter constraint %I enforced;', h.object, h.conname)
  end as statement
from held as h
left join disabled as d on d.oid = h.oid
where d.oid is not null or not h.convalidated and h.conparentid = 0
order by h.object, h.conname

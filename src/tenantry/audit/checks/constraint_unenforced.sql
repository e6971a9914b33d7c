-- Purpose: finds constraints that hold the tenant column and are not enforced: NOT VALID, NOT ENFORCED,
--          foreign keys whose triggers are disabled,
--          or all of them, by a stored session_replication_role.
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
  ),
  -- A superuser can store for others what they may not set.
  stored as (
    select case
             when r.rolname is null and d.datname is null then 'role all'
             when r.rolname is null then pg_catalog.format('database %I', d.datname)
             when d.datname is null then pg_catalog.format('role %I', r.rolname)
             else pg_catalog.format('role %I in database %I', r.rolname, d.datname) end as place,
           pg_catalog.split_part(entry, '=', 2) as value
    from pg_catalog.pg_db_role_setting as s
    cross join lateral pg_catalog.unnest(s.setconfig) as entry
    left join pg_catalog.pg_roles as r on r.oid = s.setrole
    left join pg_catalog.pg_database as d on d.oid = s.setdatabase
    where entry ~* '^session_replication_role=replica$'
      and (s.setdatabase = 0 or d.datname = pg_catalog.current_database())
      and (s.setrole = 0 or s.setrole in (
        select j.runtime::oid
        from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
          as j (runtime bigint)))
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
union all
select
  'constraint_unenforced', 'warning', 'setting', 'session_replication_role',
  pg_catalog.format('the default for %s is %s: no foreign key is checked, and no trigger fires',
                    s.place, s.value),
  'reset it',
  pg_catalog.format('alter %s reset session_replication_role;', s.place)
from stored as s
order by 4, 5

-- Purpose: finds indexes of large tenant tables that row security keeps from being searched: none of
--          the operators on a column, or the function that makes it, is leakproof.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum, c.reltuples
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
    -- A smaller table is read as a whole anyway.
    where t.attnum is not null and c.relrowsecurity and c.reltuples >= 10000
  ),
  part as materialized (
    select t.oid as table_oid, t.attnum as tenant, t.object, t.reltuples, i.indexrelid, c.relname, k.position + 1 as position,
           i.indclass[k.position] as opclass,
           -- The functions of an expression stand in its tree; those of all of the index's.
           case when i.indkey[k.position] = 0 then i.indexprs::text end as expressions
    from tenant_table as t
    join pg_catalog.pg_index as i on i.indrelid = t.oid
    join pg_catalog.pg_class as c on c.oid = i.indexrelid
    cross join lateral pg_catalog.generate_series(0, i.indnkeyatts - 1) as k (position)
    where i.indkey[k.position] <> t.attnum and not c.relispartition
  ),
  leaky as (
    select p.object, p.relname, p.reltuples,
           pg_catalog.string_agg(pg_catalog.pg_get_indexdef(p.indexrelid, p.position, true), ', '
             order by p.position) as columns
    from part as p
    join pg_catalog.pg_opclass as o on o.oid = p.opclass
    where not exists (
        select from pg_catalog.pg_amop as a
        join pg_catalog.pg_operator as op on op.oid = a.amopopr
        join pg_catalog.pg_proc as f on f.oid = op.oprcode
        where a.amopfamily = o.opcfamily and a.amoppurpose = 's'
          and a.amoplefttype = o.opcintype and f.proleakproof)
      or exists (
        select from pg_catalog.regexp_matches(p.expressions, ':(?:funcid|opfuncid) (\d+)', 'g')
          as found (captured)
        join pg_catalog.pg_proc as f on f.oid = found.captured[1]::oid
        where not f.proleakproof)
    group by p.table_oid, p.tenant, p.indexrelid, p.object, p.relname, p.reltuples
    -- Where each of its columns is searched (op.create_tenant_search), the policies of the searches
    -- depend on them.
    having exists (
      select from pg_catalog.pg_depend as k
      where k.classid = 'pg_catalog.pg_class'::pg_catalog.regclass and k.objid = p.indexrelid
        and k.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
        and k.refobjid = p.table_oid and k.refobjsubid not in (0, p.tenant)
        and not exists (
          select from pg_catalog.pg_depend as d
          join pg_catalog.pg_policy as s on s.oid = d.objid and not s.polpermissive
          join pg_catalog.pg_proc as f on s.polroles = array[f.proowner] and f.prosecdef
          where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
            and d.refclassid = k.refclassid and d.refobjid = k.refobjid
            and d.refobjsubid = k.refobjsubid))
  )
select
  'index_not_leakproof' as check_id, 'note' as severity, 'index' as object_type,
  pg_catalog.format('%I on %s', l.relname, l.object) as object,
  pg_catalog.format('row security keeps it from being searched by %s, whose operators or functions '
                    'are not leakproof; the table has about %s rows', l.columns,
                    l.reltuples::bigint) as problem,
  'search by a type whose operators are leakproof (a generated column can hold it), or by '
  'op.create_tenant_search (docs/search.md); or mark the operator''s function LEAKPROOF, knowingly'
    as remedy,
  null as statement
from leaky as l
order by l.object, l.relname

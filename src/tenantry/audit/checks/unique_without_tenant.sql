-- Purpose: finds unique and exclusion constraints and unique indexes of tenant tables that do not
--          hold the tenant column, or do not compare it by its equality: they tell a tenant which
--          values another one has.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint)
    where t.attnum is not null
  )
select
  'unique_without_tenant' as check_id, 'warning' as severity,
  case coalesce(k.contype, 'i') when 'p' then 'primary key' when 'u' then 'unique constraint'
    when 'x' then 'exclusion constraint' else 'unique index' end as object_type,
  pg_catalog.format('%I on %s', c.relname, t.object) as object,
  case when key.position is null
    then pg_catalog.format('the key is without %I: a conflict tells that another tenant has the value',
                           t."column")
    else pg_catalog.format('the key compares %I by %s: rows of different tenants conflict, which tells '
                           'that another one has the value', t."column", key.compared)
  end as problem,
  pg_catalog.format('lead the key with %I, compared by the equality of its type', t."column")
    as remedy,
  case
    when key.position is not null then null
    -- Foreign keys that refer to it have to change with it, and a person decides in which order.
    when k.contype in ('p', 'u')
         and not exists (select from pg_catalog.pg_constraint as f
                         where f.contype = 'f' and f.conindid = i.indexrelid)
      then pg_catalog.format('alter table %s drop constraint %I, add constraint %2$I %s;',
             t.object, k.conname,
             overlay(definition.text placing pg_catalog.format('(%I, ', t."column")
                     from pg_catalog.strpos(definition.text, '(') for 1))
  end as statement
from tenant_table as t
join pg_catalog.pg_index as i on i.indrelid = t.oid
join pg_catalog.pg_class as c on c.oid = i.indexrelid
left join pg_catalog.pg_constraint as k
  on k.conindid = i.indexrelid and k.conrelid = i.indrelid and k.contype in ('p', 'u', 'x')
cross join lateral (select pg_catalog.pg_get_constraintdef(k.oid) as text) as definition
left join lateral (
  select s.position,
         -- A function of one's own may find all tenants equal; an extension's is trusted.
         case
           when i.indisexclusion and k.conexclop is not null
             then case when equality.oid is null
                    then pg_catalog.format('the operator %s', operator.name) end
           when trusted.oid is null then pg_catalog.format('the operator class %I', class.opcname)
         end as compared
  from pg_catalog.generate_series(0, i.indnkeyatts - 1) as s (position)
  join pg_catalog.pg_opclass as class on class.oid = (i.indclass::oid[])[s.position]
  left join lateral (
    select class.oid
    where class.oid < 16384
       or exists (select from pg_catalog.pg_depend as d
                  where d.classid = 'pg_catalog.pg_opclass'::pg_catalog.regclass
                    and d.objid = class.oid and d.deptype = 'e')
  ) as trusted on true
  left join lateral (
    select o.oid, o.oid::pg_catalog.regoperator::text as name
    from pg_catalog.pg_operator as o where o.oid = k.conexclop[s.position + 1]
  ) as operator on true
  left join lateral (
    select m.amopopr as oid
    from pg_catalog.pg_amop as m
    join pg_catalog.pg_am as method on method.oid = m.amopmethod and method.amname = 'btree'
    where m.amopopr = operator.oid and m.amopstrategy = 3
      and (operator.oid < 16384
           or exists (select from pg_catalog.pg_depend as d
                      where d.classid = 'pg_catalog.pg_operator'::pg_catalog.regclass
                        and d.objid = operator.oid and d.deptype = 'e'))
    limit 1
  ) as equality on true
  where (i.indkey::smallint[])[s.position] = t.attnum
  order by (case when i.indisexclusion then equality.oid else trusted.oid end) is null
  limit 1
) as key on true
where (i.indisunique or i.indisexclusion)
  -- Of a partitioned table, the index of the whole speaks for those of its partitions.
  and not c.relispartition
  and (key.position is null or key.compared is not null)
order by t.object, c.relname

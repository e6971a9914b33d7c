-- Purpose: finds rules that reach tenant tables with the rights of an owner whom row security does not
--          bind, on what the application may write.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with recursive
  holder as materialized (
    select h.oid::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint)
    where h.oid <> 0
  ),
  -- With the tables that they inherit from, by way of which their own policies do not apply.
  reaching (oid) as (
    select t.oid::oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint)
    union
    select i.inhparent from reaching join pg_catalog.pg_inherits as i on i.inhrelid = reaching.oid
  ),
  tenant_table as materialized (
    select c.oid, pg_catalog.format('%I.%I', n.nspname, c.relname) as object
    from reaching
    join pg_catalog.pg_class as c on c.oid = reaching.oid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
  ),
  rule as materialized (
    select w.oid, w.rulename, w.ev_class, c.relname, n.nspname, o.rolname as owner,
           case when o.rolsuper then 'is a superuser' else 'has BYPASSRLS' end as above
    from pg_catalog.pg_rewrite as w
    join pg_catalog.pg_class as c on c.oid = w.ev_class
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_roles as o on o.oid = c.relowner
    -- The rule that makes a view a view is view_without_security_invoker's affair.
    where w.ev_type <> '1' and w.ev_enabled in ('O', 'A')
      and c.oid >= 16384
      and (o.rolsuper or o.rolbypassrls)
  ),
  reached as (
    select rule.oid,
           pg_catalog.string_agg(distinct coalesce(t.object, v.oid::pg_catalog.regclass::text), ', ')
             as names
    from rule
    join pg_catalog.pg_depend as d
      on d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass and d.objid = rule.oid
      and d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.deptype = 'n'
    left join tenant_table as t on t.oid = d.refobjid
    -- What a view shows is not followed: a rule that reads one is for a person to look at.
    left join pg_catalog.pg_class as v
      on v.oid = d.refobjid and v.relkind in ('v', 'm') and v.oid <> rule.ev_class
    where t.oid is not null or v.oid is not null
    group by rule.oid
  )
select
  'rule_on_tenant_table' as check_id, 'error' as severity, 'rule' as object_type,
  pg_catalog.format('%I on %I.%I', rule.rulename, rule.nspname, rule.relname) as object,
  pg_catalog.format('the rule reaches %s with the rights of the owner %I, who %s: row security does '
                    'not hold it', reached.names, rule.owner, rule.above) as problem,
  'let a role own it that row security binds, or drop the rule' as remedy,
  null as statement
from rule
join reached on reached.oid = rule.oid
where exists (
  select from holder
  where pg_catalog.has_table_privilege(holder.oid, rule.ev_class, 'INSERT, UPDATE, DELETE')
     or pg_catalog.has_any_column_privilege(holder.oid, rule.ev_class, 'INSERT, UPDATE'))
order by 4

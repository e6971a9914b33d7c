-- Purpose: finds rules that reach tenant tables with the rights of an owner whom row security does not
--          bind, on what the application may write.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
    -- A superuser has every privilege on everything: runtime_role_privileged says so once.
    where not r.rolsuper
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
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
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
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
  select from runtime
  where pg_catalog.has_table_privilege(runtime.oid, rule.ev_class, 'INSERT, UPDATE, DELETE')
     or pg_catalog.has_any_column_privilege(runtime.oid, rule.ev_class, 'INSERT, UPDATE'))
order by 4

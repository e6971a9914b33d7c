-- Purpose: finds functions in the policies of tenant tables that are called for each row, since they
--          cannot be folded into the query.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  called as materialized (
    select f.oid::oid as oid, f.policy::oid as policy_oid, f.used_by
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policy_functions')::json)
      as f (oid bigint, policy bigint, used_by text)
  ),
  -- Called once for each statement where it stands in a sub-select by itself.
  unwrapped as (
    select called.oid, pg_catalog.string_agg(distinct called.used_by collate "C", ', ') as names
    from called
    join pg_catalog.pg_policy as w on w.oid = called.policy_oid
    join pg_catalog.pg_proc as p on p.oid = called.oid
    join pg_catalog.pg_namespace as m on m.oid = p.pronamespace
    cross join lateral (
      select pg_catalog.format('%I.%I(', m.nspname, p.proname) as call,
             pg_catalog.concat(pg_catalog.pg_get_expr(w.polqual, w.polrelid),
                               pg_catalog.pg_get_expr(w.polwithcheck, w.polrelid)) as text
    ) as expression
    where pg_catalog.strpos(
            pg_catalog.replace(expression.text, '( SELECT ' || expression.call, ''),
            expression.call) > 0
       -- By an operator: there is no call in the text.
       or pg_catalog.strpos(expression.text, expression.call) = 0
    group by called.oid
  )
select
  'policy_function_costly' as check_id, 'note' as severity, 'function' as object_type,
  p.oid::pg_catalog.regprocedure::text as object,
  pg_catalog.format('it %s, and is not folded into the query: it is called for each row; used by %s',
                    why.text, used.names) as problem,
  'write the expression in its place, or call it in a sub-select of its own' as remedy,
  null as statement
from unwrapped as used
join pg_catalog.pg_proc as p on p.oid = used.oid
join pg_catalog.pg_language as l on l.oid = p.prolang
cross join lateral (
  select pg_catalog.concat_ws(', ',
    case when l.lanname not in ('sql', 'internal', 'c') then 'is written in ' || l.lanname end,
    case when p.prosecdef then 'is SECURITY DEFINER' end,
    case when p.proconfig is not null then 'has a SET clause' end,
    -- PostgreSQL folds an expression of SQL in, whatever its mark, and nothing that reads a table.
    case
      when l.lanname = 'sql'
           and case when p.prosqlbody is not null then pg_catalog.pg_get_functiondef(p.oid)
                 else p.prosrc end ~* '\mfrom\M' then 'reads a table'
      when l.lanname <> 'sql' and p.provolatile = 'v' then 'is VOLATILE' end) as text
) as why
where why.text <> ''
order by 4

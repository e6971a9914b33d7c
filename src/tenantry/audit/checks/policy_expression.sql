-- Purpose: finds policies that compare the tenant column otherwise than the one rule does, where no
--          wall contains them.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.is_token, t.is_partition, t.exposed
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, is_token boolean, is_partition boolean,
            exposed boolean)
    where t."column" is not null
  ),
  policy as materialized (
    select p.*
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p ("table" bigint, name text, permissive boolean, command text, to_public boolean,
            exact boolean, excepted boolean, for_authenticator boolean, mimics boolean,
            differs text)
  ),
  walled as materialized (
    select distinct p."table" from policy as p
    where not p.permissive and p.command = 'all' and p.to_public and (p.exact or p.excepted)
  )
select
  'policy_expression' as check_id, 'error' as severity, 'policy' as object_type,
  pg_catalog.format('%I on %s', p.name, t.object) as object,
  p.differs as problem,
  case when p.mimics
    then 'drop the cast, the operator or the function that it depends on, and create the policy anew'
    else 'let the policy compare the tenant column with the setting and with nothing else' end
    as remedy,
  -- Written again while that is there, it would mean the same.
  case when not p.mimics then pg_catalog.format('alter policy %I on %s%s%s;', p.name, t.object,
    case when p.command <> 'insert' then pg_catalog.format(' using (%s%s)', rule.text,
      case when t.is_token and not p.permissive and authenticator.oid is not null
        then pg_catalog.format(' or current_user = %L::name', authenticator.rolname) else '' end)
      else '' end,
    case when p.command in ('all', 'insert', 'update')
      then pg_catalog.format(' with check (%s)', rule.text) else '' end) end as statement
from policy as p
join tenant_table as t on t.oid = p."table"::oid
cross join lateral (
  select pg_catalog.format('%I = %s', t."column", pg_catalog.current_setting('tenantry.expression'))
    as text
) as rule
left join pg_catalog.pg_roles as authenticator
  on authenticator.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
where not p.exact and not p.excepted and not p.for_authenticator
  and (t.exposed or not t.is_partition)
  and not exists (select from walled as w where w."table" = p."table")
order by t.object, p.name

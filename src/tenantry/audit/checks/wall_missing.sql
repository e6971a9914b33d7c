-- Purpose: finds tenant tables without a wall: one RESTRICTIVE policy, FOR ALL, TO PUBLIC. What the
--          wall compares is policy_expression's affair.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t.name, t."column", t.is_token
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, name text, "column" text, is_token boolean,
            is_partition boolean, exposed boolean)
    where t."column" is not null and (t.exposed or not t.is_partition)
  ),
  policy as materialized (
    select p."table"::oid as table_oid, p.name, p.command, p.to_public, p.roles, p.permissive
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p ("table" bigint, name text, permissive boolean, command text, to_public boolean,
            roles text)
  ),
  named as materialized (
    select p.table_oid, pg_catalog.array_agg(p.name) as names from policy as p group by p.table_oid
  ),
  narrow as (
    select p.table_oid, pg_catalog.min(p.name) as name,
           pg_catalog.string_agg(pg_catalog.format('%I %s', p.name, pg_catalog.concat_ws(' and ',
             case when p.command <> 'all' then 'is for ' || p.command || ' alone' end,
             case when not p.to_public then 'is scoped to ' || p.roles end)), ', '
             order by p.name) as says
    from policy as p
    where not p.permissive
    group by p.table_oid
  )
select
  'wall_missing' as check_id, 'error' as severity, 'table' as object_type, t.object,
  coalesce('no restrictive policy is for all commands and all roles: ' || n.says,
           'no restrictive policy (wall): one more permissive policy opens the table') as problem,
  'create a restrictive policy for all commands and all roles, with the tenant rule' as remedy,
  pg_catalog.format(
    'create policy %I on %s as restrictive for all to public using (%s%s) with check (%3$s);',
    free.name, t.object, rule.text,
    case when t.is_token and authenticator.oid is not null
      then pg_catalog.format(' or current_user = %L::name', authenticator.rolname) else '' end)
    as statement
from tenant_table as t
left join narrow as n on n.table_oid = t.oid
left join named on named.table_oid = t.oid
left join pg_catalog.pg_roles as authenticator
  on authenticator.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
cross join lateral (
  select pg_catalog.format('%I = %s', t."column", pg_catalog.current_setting('tenantry.expression'))
    as text
) as rule
cross join lateral (
  -- A name of at most 63 bytes that no policy of the table has.
  select candidate.name
  from (
    select 0 as position, (t.name || '_tenant_wall')::name::text as name
    where pg_catalog.octet_length(t.name) <= 51
    union all
    select s.number, 'tenant_wall' || coalesce('_' || nullif(s.number, 1), '')
    from pg_catalog.generate_series(1, 100) as s (number)
  ) as candidate
  where candidate.name <> all (coalesce(named.names, '{}'))
  order by candidate.position
  limit 1
) as free
where not exists (
  select from policy as p
  where p.table_oid = t.oid and not p.permissive and p.command = 'all' and p.to_public)
order by t.object

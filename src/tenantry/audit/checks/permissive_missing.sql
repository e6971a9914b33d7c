-- Purpose: finds walled tenant tables of which nobody sees a row, since no permissive policy lets one
--          through.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid, t.object, t.name, t."column"
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, name text, "column" text, is_partition boolean,
            exposed boolean)
    where t."column" is not null and (t.exposed or not t.is_partition)
  ),
  policy as materialized (
    select p."table", p.name, p.permissive
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p ("table" bigint, name text, permissive boolean)
  ),
  named as materialized (
    select p."table", pg_catalog.array_agg(p.name) as names from policy as p group by p."table"
  )
select
  'permissive_missing' as check_id, 'note' as severity, 'table' as object_type, t.object,
  'no permissive policy: with row security on, nobody sees a row' as problem,
  'create a permissive policy with the tenant rule' as remedy,
  pg_catalog.format('create policy %I on %s for all to public using (%s) with check (%3$s);',
    free.name, t.object,
    pg_catalog.format('%I = %s', t."column", pg_catalog.current_setting('tenantry.expression')))
    as statement
from tenant_table as t
left join named on named."table" = t.oid
cross join lateral (
  -- A name of at most 63 bytes that no policy of the table has.
  select candidate.name
  from (
    select 0 as position, t.name || '_tenant' as name
    where pg_catalog.octet_length(t.name) <= 56
    union all
    select s.number, 'tenant' || coalesce('_' || nullif(s.number, 1), '')
    from pg_catalog.generate_series(1, 100) as s (number)
  ) as candidate
  where candidate.name <> all (coalesce(named.names, '{}'))
  order by candidate.position
  limit 1
) as free
where not exists (select from policy as p where p."table" = t.oid and p.permissive)
order by t.object

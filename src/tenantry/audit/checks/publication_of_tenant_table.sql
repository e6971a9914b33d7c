-- Purpose: finds publications that send the rows of all tenants: a subscriber is held by no policy.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.schema, t.name, t.object, t."column"
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (schema text, name text, object text, "column" text)
  ),
  sent as (
    select p.pubname, t.object,
           pg_catalog.row_number() over (partition by p.pubname order by t.object) as number
    from pg_catalog.pg_publication_tables as p
    join tenant_table as t on t.schema = p.schemaname and t.name = p.tablename
    cross join lateral (select pg_catalog.format('(%I = ', t."column") as text) as head
    -- A filter that compares the tenant column with a constant sends what is one tenant's.
    where p.rowfilter is null
       or p.rowfilter ~ '\mOR\M'
       or pg_catalog.split_part(p.rowfilter, head.text, 2) !~ '^[''0-9]'
  )
select
  'publication_of_tenant_table' as check_id, 'warning' as severity, 'publication' as object_type,
  pg_catalog.quote_ident(s.pubname) as object,
  pg_catalog.format('it sends the rows of all tenants of %s%s',
    pg_catalog.string_agg(s.object, ', ' order by s.object) filter (where s.number <= 5),
    case when pg_catalog.count(*) > 5
      then pg_catalog.format(' and %s more', pg_catalog.count(*) - 5) else '' end) as problem,
  'drop it, or give each tenant table a row filter on the tenant column; who subscribes sees all '
  'that it sends' as remedy,
  null as statement
from sent as s
group by s.pubname
order by s.pubname

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
    -- A filter that compares the tenant column with a constant, itself or as a part of an AND that is
    -- the whole of it, sends what is one tenant's. A varchar column prints as its text.
    cross join lateral (
      select pg_catalog.regexp_replace(pg_catalog.quote_ident(t."column"), '([][^$.|?*+(){}\\])',
                                       '\\\1', 'g') as text
    ) as name
    cross join lateral (
      select '\((' || name.text || '|\(' || name.text || '\)::text) = '
             '(E?''([^'']|'''')*''(::[a-z ]+)?|[0-9]+|\([0-9]+\)::[a-z]+)\)' as pattern
    ) as comparison
    where p.rowfilter is null
       or not exists (
         select
         from pg_catalog.generate_series(
           1, pg_catalog.regexp_count(p.rowfilter, comparison.pattern)) as match (number)
         cross join lateral (
           select pg_catalog."left"(p.rowfilter, pg_catalog.regexp_instr(
                    p.rowfilter, comparison.pattern, 1, match.number) - 1) as before,
                  pg_catalog.substr(p.rowfilter, pg_catalog.regexp_instr(
                    p.rowfilter, comparison.pattern, 1, match.number, 1)) as after
         ) as part
         -- A constant or a quoted name may hold anything.
         cross join lateral (
           select pg_catalog.regexp_replace(
                    part.before, '''([^'']|'''')*''|"([^"]|"")*"', '_', 'g') as before
         ) as bare
         where (part.before = '' and part.after = '')
            or (bare.before ~ '^\((.* AND )?$' and part.after ~ '^(\)$| AND )'
                and bare.before !~ '[''"]'
                and pg_catalog.length(pg_catalog.replace(bare.before, '(', ''))
                    = pg_catalog.length(pg_catalog.replace(bare.before, ')', '')) - 1))
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

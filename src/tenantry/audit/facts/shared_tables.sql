-- Purpose: finds the tables without the tenant column whose rows row security does not keep apart; leaves
--          them in the setting tenantry.shared_tables, a JSON list of {oid, object}.
-- Run by:  any role, in the audit's transaction, after facts/reach.sql and facts/tables.sql.
-- Twice:   yes, it reads only.

with
  reached as materialized (
    select pg_catalog.array_agg(distinct r.target::oid) || 0::oid as oids
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (target bigint)
  ),
  candidate as materialized (
    select c.oid, c.relrowsecurity, pg_catalog.format('%I.%I', n.nspname, c.relname) as object
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and c.relpersistence <> 't' and c.oid >= 16384
      and (pg_catalog.current_setting('tenantry.schemas') = '{}'
           or n.nspname = any (pg_catalog.current_setting('tenantry.schemas')::text[]))
      and c.oid not in (
        select t.oid::oid
        from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
          as t (oid bigint))
  ),
  -- What can tell one tenant from another names the setting, asks another table, or calls a function.
  -- Whether it asks rightly is not decided here.
  policy as materialized (
    select p.polrelid, p.polpermissive,
           p.polcmd = '*' and p.polroles = '{0}' as of_all,
           p.polroles && reached.oids as binds,
           (select pg_catalog.bool_and(
                     e.text is null or e.text = 'false'
                     or e.text <> 'true'
                        and (outside.is_asked
                             or pg_catalog.strpos(e.text, pg_catalog.quote_literal(
                                  pg_catalog.current_setting('tenantry.organization_setting'))) > 0))
            from (values (pg_catalog.pg_get_expr(p.polqual, p.polrelid)),
                         (pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))) as e (text)) as tells
    from pg_catalog.pg_policy as p
    cross join reached
    cross join lateral (
      select exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass and d.objid = p.oid
          and (d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass
               or d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass
                  and d.refobjid <> p.polrelid)) as is_asked
    ) as outside
    where p.polrelid in (select c.oid from candidate as c where c.relrowsecurity)
  )
select
where pg_catalog.set_config('tenantry.shared_tables',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', c.oid::bigint, 'object', c.object) order by c.object)::text, '[]')
   from candidate as c
   where not c.relrowsecurity
      or c.oid in (select p.polrelid from policy as p
                   where p.polpermissive and p.binds and not p.tells)
         and c.oid not in (select p.polrelid from policy as p
                           where not p.polpermissive and p.of_all and p.tells)),
  true) is null

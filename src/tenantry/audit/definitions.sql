-- Purpose: tells how the objects of findings are defined, as a digest, so that an entry of a baseline
--          holds for what was looked at and for nothing that took its place. A listing, no check.
-- Run by:  any role, in the audit's transaction, after facts/*.sql and with the setting tenantry.found,
--          a JSON list of {type, object}.
-- Twice:   yes, it reads only.

with
  found as materialized (
    select distinct f.type, f.object
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.found')::json)
      as f (type text, object text)
  ),
  code as materialized (
    select p.oid, p.oid::pg_catalog.regprocedure::text as object,
           pg_catalog.concat_ws(' ', pg_catalog.pg_get_userbyid(p.proowner),
             -- Of an aggregate there is no such text.
             case when p.prokind = 'a' then p.prosrc else pg_catalog.pg_get_functiondef(p.oid) end)
             as definition
    from pg_catalog.pg_proc as p
    where p.oid >= 16384
      and exists (select from found where found.type in ('function', 'procedure', 'trigger'))
  ),
  relation as materialized (
    select c.oid, c.relkind, c.relowner, c.reloptions,
           pg_catalog.format('%I.%I', n.nspname, c.relname) as object
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and c.relkind in ('r', 'p', 'v', 'm', 'f')
  ),
  reach as materialized (
    select r.runtime::oid as runtime, r.target::oid as target
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint, target bigint)
  ),
  -- What the application's own roles are granted is their work; what others are is in reach of it.
  given as materialized (
    select acl.grantee,
           pg_catalog.string_agg(
             relation.object || ' ' || acl.privilege_type, ',' order by relation.object,
             acl.privilege_type) as privileges
    from relation
    join pg_catalog.pg_class as c on c.oid = relation.oid and c.relacl is not null
    cross join lateral pg_catalog.aclexplode(c.relacl) as acl
    where acl.grantee in (select reach.target from reach)
      and acl.grantee not in (select reach.runtime from reach)
      and exists (select from found where found.type = 'role')
    group by acl.grantee
  ),
  defined (object_type, object, definition) as (
    select f.type, f.object, code.definition
    from found as f join code on code.object = f.object
    where f.type in ('function', 'procedure')
    union all
    select f.type, f.object,
           pg_catalog.concat_ws(' ', p.polpermissive, p.polcmd,
             (select pg_catalog.string_agg(coalesce(r.rolname, 'PUBLIC'), ',' order by r.rolname)
              from pg_catalog.unnest(p.polroles) as o (oid)
              left join pg_catalog.pg_roles as r on r.oid = o.oid),
             pg_catalog.pg_get_expr(p.polqual, p.polrelid),
             pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid))
    from pg_catalog.pg_policy as p
    join relation on relation.oid = p.polrelid
    join found as f
      on f.type = 'policy' and f.object = pg_catalog.format('%I on %s', p.polname, relation.object)
    union all
    select f.type, f.object,
           pg_catalog.concat_ws(' ', pg_catalog.pg_get_userbyid(relation.relowner),
             relation.reloptions, pg_catalog.pg_get_viewdef(relation.oid))
    from found as f
    join relation on relation.object = f.object and relation.relkind in ('v', 'm')
    union all
    select f.type, f.object, pg_catalog.pg_get_constraintdef(k.oid)
    from pg_catalog.pg_constraint as k
    join relation on relation.oid = k.conrelid
    join found as f on f.object = pg_catalog.format('%I on %s', k.conname, relation.object)
    union all
    select f.type, f.object, pg_catalog.pg_get_indexdef(i.indexrelid)
    from pg_catalog.pg_index as i
    join relation on relation.oid = i.indrelid
    join pg_catalog.pg_class as c on c.oid = i.indexrelid
    join found as f on f.object = pg_catalog.format('%I on %s', c.relname, relation.object)
    where f.type ~ 'index'
    union all
    select f.type, f.object, pg_catalog.pg_get_triggerdef(g.oid) || ' ' || code.definition
    from pg_catalog.pg_trigger as g
    join relation on relation.oid = g.tgrelid
    join found as f
      on f.type = 'trigger' and f.object = pg_catalog.format('%I on %s', g.tgname, relation.object)
    left join code on code.oid = g.tgfoid
    union all
    select f.type, f.object, pg_catalog.pg_get_ruledef(w.oid)
    from pg_catalog.pg_rewrite as w
    join relation on relation.oid = w.ev_class
    join found as f
      on f.type = 'rule' and f.object = pg_catalog.format('%I on %s', w.rulename, relation.object)
    union all
    select f.type, f.object, pg_catalog.concat_ws(' ', t.pubname, t.schemaname, t.tablename, t.attnames,
                                                  t.rowfilter)
    from pg_catalog.pg_publication_tables as t
    join found as f on f.type = 'publication' and f.object = pg_catalog.quote_ident(t.pubname)
    union all
    select f.type, f.object,
           pg_catalog.concat_ws(' ', g.rolname, g.rolsuper, g.rolbypassrls, g.rolcreaterole,
             g.rolcreatedb, g.rolreplication, given.privileges)
    from found as f
    join pg_catalog.pg_roles as r on f.type = 'role' and f.object = pg_catalog.quote_ident(r.rolname)
    join reach on reach.runtime = r.oid
    join pg_catalog.pg_roles as g on g.oid = reach.target
    left join given on given.grantee = g.oid
  )
select d.object_type, d.object,
       pg_catalog.md5(pg_catalog.string_agg(d.definition, ';' order by d.definition)) as digest
from defined as d
group by d.object_type, d.object

-- Purpose: finds what holds rows' values or secrets beside the tables themselves, and that the
--          application may read: system catalogs with statistics, large objects and passwords, views of
--          them, and the TOAST tables of tenants' long values.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with recursive
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  -- What is `filtered` shows each role what is its own: only a materialized view keeps what it showed
  -- another one.
  secret (name, columns, filtered, holds) as (
    values
      ('pg_statistic', 'stavalues\d', false,
       'the most common values and the histograms of all tenants'' rows'),
      ('pg_statistic_ext_data', 'stxd\w+', false, 'the most common values of all tenants'' rows'),
      ('pg_largeobject', 'data', false, 'the large objects of all tenants'),
      ('pg_authid', 'rolpassword', false, 'the passwords of all roles'),
      ('pg_shadow', 'passwd', false, 'the passwords of all logins'),
      ('pg_subscription', 'subconninfo', false, 'passwords of other servers'),
      ('pg_user_mapping', 'umoptions', false, 'passwords of other servers'),
      ('pg_user_mappings', 'umoptions', true, 'passwords of other servers'),
      ('pg_stats', 'most_common_vals|histogram_bounds', true,
       'the most common values and the histograms of all tenants'' rows'),
      ('pg_stat_activity', 'query', true, 'the statements of all sessions')
  ),
  catalog as materialized (
    select c.oid, s.*
    from secret as s
    join pg_catalog.pg_class as c
      on c.relname = s.name and c.relnamespace = 'pg_catalog'::pg_catalog.regnamespace
  ),
  relation as materialized (
    select c.oid, c.relkind, w.oid as rule_oid, w.ev_action,
           c.relkind = 'v' and exists (
             select from pg_catalog.pg_options_to_table(c.reloptions) as o
             where o.option_name = 'security_invoker' and o.option_value::boolean) as is_invoker
    from pg_catalog.pg_class as c
    join pg_catalog.pg_rewrite as w on w.ev_class = c.oid and w.ev_type = '1'
    where c.relkind in ('v', 'm') and c.oid >= 16384 and c.relpersistence <> 't'
  ),
  -- Dependencies on what the server is made of are not recorded: the query itself tells.
  showing (oid, holds, filtered) as (
    select r.oid, s.holds, s.filtered
    from relation as r
    join catalog as s
      on pg_catalog.strpos(r.ev_action::text, pg_catalog.format(':relid %s ', s.oid)) > 0
    where pg_catalog.pg_get_viewdef(r.oid) ~ ('\m(' || s.columns || ')\M|\.\*')
    union
    select r.oid, showing.holds, showing.filtered and inner_one.relkind <> 'm'
    from showing
    join relation as inner_one on inner_one.oid = showing.oid
    join pg_catalog.pg_depend as d
      on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = showing.oid
      and d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    join relation as r on r.rule_oid = d.objid and r.oid <> showing.oid
  ),
  opened as materialized (
    select s.oid, 'table' as kind, s.holds, s.columns = 'subconninfo' as by_column
    from catalog as s
    where not s.filtered
    union all
    select r.oid, case r.relkind when 'v' then 'view' else 'materialized view' end, showing.holds, false
    from showing
    join relation as r on r.oid = showing.oid
    where not r.is_invoker and (r.relkind = 'm' or not showing.filtered)
    union all
    select c.reltoastrelid, 'TOAST table',
           pg_catalog.format('the long values of all tenants'' rows in %s', t.object), false
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
    where c.reltoastrelid <> 0
  ),
  listed as (
    select o.oid, o.kind, o.holds, c.relowner, c.relacl as list, false as by_column
    from opened as o
    join pg_catalog.pg_class as c on c.oid = o.oid
    union all
    select o.oid, o.kind, o.holds, c.relowner, a.attacl, o.by_column
    from opened as o
    join pg_catalog.pg_class as c on c.oid = o.oid
    join pg_catalog.pg_attribute as a
      on a.attrelid = o.oid and a.attacl is not null and not a.attisdropped
    -- All columns of pg_subscription but the one with the password are everybody's.
    where not o.by_column or a.attname = 'subconninfo'
  ),
  given as (
    select l.oid, l.kind, pg_catalog.bool_and(l.by_column) as by_column,
           pg_catalog.string_agg(distinct l.holds, ', ') as holds,
           pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from listed as l
    cross join lateral pg_catalog.aclexplode(l.list) as acl
    join holder as h on h.oid = acl.grantee
    where acl.privilege_type = 'SELECT' and acl.grantee <> l.relowner
    group by l.oid, l.kind
  )
select
  'catalog_readable' as check_id, 'error' as severity, g.kind as object_type, named.object,
  pg_catalog.format('%s may read it: it holds %s', g.grantees, g.holds) as problem,
  'revoke SELECT; pg_stats shows each role what row security lets it see' as remedy,
  pg_catalog.format('revoke select%s on %s from %s;',
    case when g.by_column then ' (subconninfo)' end, named.object, g.grantees) as statement
from given as g
join pg_catalog.pg_class as c on c.oid = g.oid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
cross join lateral (
  select pg_catalog.format('%I.%I', n.nspname, c.relname) as object
) as named
order by named.object

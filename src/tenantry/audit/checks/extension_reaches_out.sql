-- Purpose: finds ways by which the application's SQL makes a connection of its own: dblink, and foreign
--          servers. Row security and the tenant that is set end where the connection begins.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  holder as materialized (
    select h.oid::oid as oid, h.grantee
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.holders')::json)
      as h (oid bigint, grantee text)
  ),
  runtime as materialized (
    select distinct r.oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
    where not r.rolsuper
  ),
  callable as (
    select e.extname, p.oid::pg_catalog.regprocedure::text as name,
           pg_catalog.string_agg(distinct h.grantee, ', ') as grantees
    from pg_catalog.pg_extension as e
    join pg_catalog.pg_depend as d
      on d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass and d.refobjid = e.oid
      and d.deptype = 'e' and d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
    join pg_catalog.pg_proc as p on p.oid = d.objid
    cross join lateral pg_catalog.aclexplode(
      coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) as acl
    join holder as h on h.oid = acl.grantee
    where e.extname = 'dblink'
      -- By the code that runs: a name may be any.
      and p.prosrc in ('dblink_record', 'dblink_connect', 'dblink_exec', 'dblink_open',
                       'dblink_send_query')
      and exists (
        select from runtime
        where pg_catalog.has_schema_privilege(runtime.oid, p.pronamespace, 'USAGE'))
    group by e.extname, p.oid
  ),
  usable as (
    select s.srvname, pg_catalog.string_agg(distinct h.grantee, ', ') as grantees,
           pg_catalog.bool_or(exists (
             select from pg_catalog.pg_user_mappings as m
             where m.srvid = s.oid and (m.umuser = 0 or m.umuser in (select holder.oid from holder))))
             as mapped
    from pg_catalog.pg_foreign_server as s
    cross join lateral pg_catalog.aclexplode(s.srvacl) as acl
    join holder as h on h.oid = acl.grantee
    where acl.grantee <> s.srvowner
    group by s.oid, s.srvname
  )
select
  'extension_reaches_out' as check_id, 'warning' as severity, f.object_type, f.object, f.problem,
  f.remedy, f.statement
from (
  select 'extension', pg_catalog.quote_ident(c.extname),
         'the application may connect from the server to any other and to this one: no tenant that is '
         'set goes along',
         'revoke EXECUTE on its functions',
         pg_catalog.string_agg(
           pg_catalog.format('revoke execute on function %s from %s;', c.name, c.grantees), ' '
           order by c.name)
  from callable as c
  group by c.extname
  union all
  select 'foreign server', pg_catalog.quote_ident(u.srvname),
         pg_catalog.format('%s may use it%s: no tenant that is set goes along', u.grantees,
           case when u.mapped then ', and a user mapping logs in for it' else '' end),
         'revoke USAGE; what the application needs of a foreign table takes no USAGE',
         pg_catalog.format('revoke usage on foreign server %I from %s;', u.srvname, u.grantees)
  from usable as u
) as f (object_type, object, problem, remedy, statement)
order by f.object_type, f.object

-- Purpose: finds by which memberships the roles that act as the application can become others; leaves
--          them in the setting tenantry.memberships, a JSON list of {runtime, role, target, statement}
--          (oids). `role` is what the runtime role is a member of itself, and `target` what it can
--          become by that, the role included; `statement` ends the membership. Left out is that in
--          another role of the application: it is how a login gets its rights, and what can be become
--          by way of it is that role's own.
-- Run by:  any role, in the audit's transaction, after facts/reach.sql.
-- Twice:   yes, it reads only.

with recursive
  runtime as materialized (
    select distinct r.runtime::oid as oid
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as r (runtime bigint)
  ),
  membership as materialized (
    select m.roleid, m.member from pg_catalog.pg_auth_members as m
    union
    select owner.oid, d.datdba
    from pg_catalog.pg_database as d
    join pg_catalog.pg_roles as owner on owner.rolname = 'pg_database_owner'
    where d.datname = pg_catalog.current_database()
  ),
  way (runtime, role, target) as (
    select m.member, m.roleid, m.roleid
    from membership as m
    where m.member in (select runtime.oid from runtime)
      and m.roleid not in (select runtime.oid from runtime)
    union
    select way.runtime, way.role, m.roleid
    from way join membership as m on m.member = way.target
  ),
  ending as materialized (
    select m.member, m.roleid,
           pg_catalog.string_agg(
             pg_catalog.format('revoke %I from %I%s%s;', g.rolname, r.rolname,
               -- From version 16 on there is a membership for each who granted it, and REVOKE ends the
               -- one that the superuser the cluster began with granted.
               case when pg_catalog.current_setting('server_version_num')::integer >= 160000
                         and m.grantor <> 10
                 then pg_catalog.format(' granted by %I', by.rolname) else '' end,
               case when exists (select from pg_catalog.pg_auth_members as further
                                 where further.roleid = m.roleid and further.grantor = m.member)
                 then ' cascade' else '' end),
             ' ' order by m.grantor) as statement
    from pg_catalog.pg_auth_members as m
    join pg_catalog.pg_roles as g on g.oid = m.roleid
    join pg_catalog.pg_roles as r on r.oid = m.member
    left join pg_catalog.pg_roles as by on by.oid = m.grantor
    where m.member in (select runtime.oid from runtime)
    group by m.member, m.roleid
  )
select
where pg_catalog.set_config('tenantry.memberships',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'runtime', way.runtime::bigint, 'role', way.role::bigint,
            'target', way.target::bigint, 'statement', ending.statement)
            order by way.runtime, way.role, way.target)::text, '[]')
   from way
   left join ending on ending.member = way.runtime and ending.roleid = way.role),
  true) is null

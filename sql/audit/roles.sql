-- Purpose: judge the roles that act as the application; leaves one JSON object for each in the
--          setting tenantry.roles. Needs tenantry.reach.
-- Run by:  any role, as a part of audit.sql, which begins the transaction and sets the parameters.
-- Twice:   yes, it reads only.

with
  reach as materialized (
    select j.runtime::oid as runtime, j.target::oid as target
    from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.reach')::jsonb)
      as j (runtime bigint, target bigint)
  ),
  judged as (
    select r.oid, r.rolname, r.rolcanlogin, r.rolsuper, r.rolbypassrls, r.rolcreaterole,
           r.rolreplication, r.rolinherit,
           (select pg_catalog.string_agg(g.rolname, ', ' order by g.rolname)
            from reach join pg_catalog.pg_roles as g on g.oid = reach.target
            where reach.runtime = r.oid and reach.target <> r.oid) as can_become,
           pg_catalog.array_remove(array[
             case when r.rolsuper then 'superuser: row security never applies' end,
             case when r.rolbypassrls then 'BYPASSRLS: row security never applies' end,
             case when r.rolcreaterole then 'CREATEROLE: can make itself a member of other roles' end,
             case when r.rolreplication then 'REPLICATION: can read every row of every table' end
           ], null)
           || array(
             select case
                 when g.rolsuper then pg_catalog.format('can become %s, a superuser', g.rolname)
                 when g.rolbypassrls then pg_catalog.format('can become %s, which has BYPASSRLS',
                                                            g.rolname)
                 when g.rolname = pg_catalog.current_setting('tenantry.authenticator_role')
                   then pg_catalog.format('can become %s, which sees the tokens of all tenants',
                                          g.rolname)
                 else pg_catalog.format('is a member of %s: reads past the server''s access control',
                                        g.rolname)
               end
             from reach join pg_catalog.pg_roles as g on g.oid = reach.target
             where reach.runtime = r.oid and reach.target <> r.oid
               and (g.rolsuper or g.rolbypassrls
                    or g.rolname in ('pg_execute_server_program', 'pg_read_server_files',
                                     'pg_write_server_files',
                                     pg_catalog.current_setting('tenantry.authenticator_role')))
             order by g.rolname) as faults
    from pg_catalog.pg_roles as r
    where r.oid in (select reach.runtime from reach)
  )
select pg_catalog.set_config('tenantry.roles', coalesce(
  pg_catalog.jsonb_agg(pg_catalog.to_jsonb(judged) order by
    judged.rolname <> pg_catalog.current_setting('tenantry.app_role'), judged.rolname)::text,
  '[]'), true)
from judged
\gset tenantry_ignored_

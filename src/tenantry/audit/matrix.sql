-- Purpose: lists the tenant tables: for each command whether the application may give it, and what
--          then keeps it inside its tenant. A cell begins with one word: `closed` (it may not; or
--          no row is let through), `walled` (the wall holds it), `thin` (a policy that is right, or a
--          key that lets nothing be read, and no wall) or `open` (nothing). A listing, no check.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  runtime as materialized (
    select distinct r.oid, r.rolname, r.rolsuper or r.rolbypassrls as above,
           r.rolname = pg_catalog.current_setting('tenantry.app_role') as is_app_role
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.reach')::json)
      as j (runtime bigint)
    join pg_catalog.pg_roles as r on r.oid = j.runtime::oid
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum, t.is_partition, c.relowner,
           c.relrowsecurity, c.relforcerowsecurity
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint, is_partition boolean,
            exposed boolean)
    join pg_catalog.pg_class as c on c.oid = t.oid::oid
    where t.exposed or not t.is_partition
  ),
  policy as materialized (
    select p."table"::oid as table_oid, p.name, p.permissive, p.command,
           p.exact or p.excepted as right_one,
           not p.permissive and p.to_public and (p.exact or p.excepted) as is_wall,
           p.for_authenticator
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.policies')::json)
      as p ("table" bigint, name text, permissive boolean, command text, to_public boolean,
            exact boolean, excepted boolean, for_authenticator boolean)
  ),
  command (position, name, privilege, row_security) as (
    values (1, 'select', 'SELECT', true), (2, 'insert', 'INSERT', true),
           (3, 'update', 'UPDATE', true), (4, 'delete', 'DELETE', true),
           (5, 'truncate', 'TRUNCATE', false), (6, 'references', 'REFERENCES', false)
  ),
  held as materialized (
    select t.oid, command.name,
           -- What the application's role has its logins have.
           pg_catalog.string_agg(pg_catalog.quote_ident(runtime.rolname), ', '
             order by runtime.rolname) filter (where runtime.is_app_role) as app,
           pg_catalog.string_agg(pg_catalog.quote_ident(runtime.rolname), ', '
             order by runtime.rolname) as roles,
           pg_catalog.string_agg(pg_catalog.quote_ident(runtime.rolname), ', '
             order by runtime.rolname)
             filter (where runtime.above
                     or not t.relforcerowsecurity
                        and pg_catalog.pg_has_role(runtime.oid, t.relowner, 'USAGE')) as above
    from tenant_table as t
    cross join command
    cross join runtime
    where case when command.name in ('delete', 'truncate')
      then pg_catalog.has_table_privilege(runtime.oid, t.oid, command.privilege)
      else pg_catalog.has_any_column_privilege(runtime.oid, t.oid, command.privilege) end
    group by t.oid, command.name
  ),
  bound as materialized (
    select p.table_oid, command.name,
           pg_catalog.bool_or(p.is_wall) as walled,
           pg_catalog.bool_or(p.permissive) as let_through,
           pg_catalog.string_agg(pg_catalog.quote_ident(p.name), ', ' order by p.name)
             filter (where p.permissive and not p.right_one and not p.for_authenticator) as differing
    from policy as p
    join command on p.command in ('all', command.name)
    group by p.table_oid, command.name
  ),
  cell as materialized (
    select t.oid, command.position,
           case
             when h.roles is null then 'closed'
             when not command.row_security then 'open: row security does not cover it'
             when not t.relrowsecurity then 'open: row security is off'
             when h.above is not null then 'open: row security does not hold ' || h.above
             when b.let_through is not true then 'closed: no policy lets a row through'
             when b.walled then 'walled'
             when b.differing is not null then 'open: it is otherwise in ' || b.differing
             else 'thin: no wall'
           end as says
    from tenant_table as t
    cross join command
    left join held as h on h.oid = t.oid and h.name = command.name
    left join bound as b on b.table_oid = t.oid and b.name = command.name
  ),
  row_of as materialized (
    select cell.oid, pg_catalog.array_agg(cell.says order by cell.position) as cells
    from cell group by cell.oid
  ),
  granted as materialized (
    select h.oid, pg_catalog.string_agg(distinct coalesce(h.app, h.roles), ', ') as roles
    from held as h group by h.oid
  ),
  -- PostgreSQL checks keys without row security: one without the tenant column answers for all.
  key as materialized (
    select t.oid, c.relname as name
    from tenant_table as t
    join pg_catalog.pg_index as i on i.indrelid = t.oid
    join pg_catalog.pg_class as c on c.oid = i.indexrelid
    where (i.indisunique or i.indisexclusion) and not c.relispartition
      and not coalesce(t.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1]), false)
    union all
    select t.oid, k.conname
    from tenant_table as t
    join pg_catalog.pg_constraint as k on k.conrelid = t.oid
    join tenant_table as other on other.oid = k.confrelid
    where k.contype = 'f' and k.conparentid = 0
      and not exists (
        select from pg_catalog.generate_subscripts(k.conkey, 1) as s (position)
        where k.conkey[s.position] = t.attnum and k.confkey[s.position] = other.attnum)
  ),
  loose as materialized (
    select key.oid, pg_catalog.string_agg(pg_catalog.quote_ident(key.name), ', ' order by key.name)
      as names
    from key group by key.oid
  ),
  listed as materialized (
    select p.table_oid,
           pg_catalog.string_agg(pg_catalog.quote_ident(p.name), ', ' order by p.name)
             filter (where not p.permissive) as restrictive,
           pg_catalog.string_agg(pg_catalog.quote_ident(p.name), ', ' order by p.name)
             filter (where p.permissive) as permissive
    from policy as p group by p.table_oid
  )
select
  t.object as "table",
  row_of.cells[1] as "select", row_of.cells[2] as insert, row_of.cells[3] as update,
  row_of.cells[4] as delete, row_of.cells[5] as truncate, row_of.cells[6] as references,
  case when loose.names is null then 'walled' else 'thin: without the tenant: ' || loose.names end
    as keys,
  case when not t.relrowsecurity then 'off' when t.relforcerowsecurity then 'forced'
    else 'not forced' end
    as row_security,
  coalesce(listed.restrictive, '') as walls,
  coalesce(listed.permissive, '') as policies,
  coalesce(granted.roles, '') as granted_to,
  pg_catalog.pg_get_userbyid(t.relowner)::text as owner
from tenant_table as t
join row_of on row_of.oid = t.oid
left join loose on loose.oid = t.oid
left join listed on listed.table_oid = t.oid
left join granted on granted.oid = t.oid
order by t.object

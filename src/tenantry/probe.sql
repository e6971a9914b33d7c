-- The probe: what this connection's role could do to the wall between tenants, in one row.
-- Run by: the session layer, on each new connection, in a transaction that it rolls back, after the
-- settings of probe.py; by `tenantry status`. Parameters are psycopg2's, and are translated for
-- other drivers. Changes nothing; can be run at any time.

with recursive
  -- Who the connection is, may go back to being, and can become.
  me as (
    select oid, rolname, rolsuper from pg_catalog.pg_roles
    where rolname in (current_user, session_user, %(login)s)
  ),
  reachable as (
    select r.oid, r.rolname, r.rolsuper, r.rolbypassrls, r.rolcreaterole, r.rolreplication,
      exists (select from me where me.oid = r.oid) as is_me
    from pg_catalog.pg_roles as r
    where exists (select from me where pg_catalog.pg_has_role(me.oid, r.oid, 'member'))
  ),
  is_superuser as (
    select coalesce(bool_or(rolsuper), false) as answer from me
  ),
  role_reasons as (
    select rolname, reason from (
      select r.rolname, r.is_me,
        case
          when r.rolsuper then 'is superuser'
          when r.rolbypassrls then 'has BYPASSRLS'
          when r.rolcreaterole then 'has CREATEROLE, and can grant itself other roles'
          when r.rolreplication then 'has REPLICATION, and can copy the whole server'
          when r.rolname in ('pg_execute_server_program', 'pg_read_server_files',
            'pg_write_server_files') then 'reaches the server''s own files'
          when r.rolname = %(authenticator)s then 'reads the tokens of all tenants'
        end as what
      from reachable as r
    ) as found
    cross join is_superuser as s
    cross join lateral (
      select pg_catalog.format('role %%I %%s%%s', rolname, what,
        case when is_me then '' else ', and this login can become it' end) as reason
    ) as sentence
    -- A superuser can become every role: that it is one says it all.
    where what is not null and (is_me or not s.answer)
  ),

  -- The tenant tables: those with the column, the root table, and what the models declare.
  declared as (
    select d.schema_name, d.table_name, d.column_name
    from pg_catalog.json_to_recordset(%(declared)s::json)
      as d (schema_name text, table_name text, column_name text)
  ),
  tables as (
    select c.oid, n.nspname, c.relname, c.relowner, c.relrowsecurity, c.relforcerowsecurity
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p', 'f')
      and n.nspname not in ('pg_catalog', 'information_schema')
      and n.nspname !~ '^pg_(toast|temp)'
  ),
  columns as (
    select t.oid, a.attname
    from tables as t
    join pg_catalog.pg_attribute as a on a.attrelid = t.oid
    where a.attnum > 0 and not a.attisdropped
  ),
  tenant_columns as (
    select t.oid, coalesce(
      (select d.column_name from declared as d
       where d.table_name = t.relname and coalesce(d.schema_name, t.nspname) = t.nspname
         and exists (select from columns as c where c.oid = t.oid and c.attname = d.column_name)
       limit 1),
      (select %(tenant_column)s::text
       where exists (
         select from columns as c where c.oid = t.oid and c.attname = %(tenant_column)s)),
      (select 'id'
       where t.relname = %(root_table)s
         and exists (select from columns as c where c.oid = t.oid and c.attname = 'id'))
    ) as tenant_column
    from tables as t
  ),
  tenant_tables as (
    select t.*, c.tenant_column
    from tables as t join tenant_columns as c using (oid)
    where c.tenant_column is not null
  ),
  reached as (
    select t.* from tenant_tables as t
    where exists (
      select from reachable as r
      where pg_catalog.has_schema_privilege(r.oid, t.nspname, 'usage')
        and (pg_catalog.has_table_privilege(r.oid, t.oid,
            'select, insert, update, delete, truncate, references, trigger')
          or pg_catalog.has_any_column_privilege(r.oid, t.oid,
            'select, insert, update, references')))
  ),

  -- The policies: is each one the rule, letter for letter.
  judged as (
    select p.polrelid, p.polpermissive, p.polcmd, 0 = any (p.polroles) as to_public,
      is_plain and using_text in (rule, wrapped_rule) as using_is_rule,
      -- The rule, with an exemption for a role that this login is not and cannot become.
      is_plain and exists (
        select from pg_catalog.pg_roles as r
        where using_text = pg_catalog.concat('(', rule, ' OR (CURRENT_USER = ',
            pg_catalog.quote_literal(r.rolname), '::name))')
          and not exists (select from reachable as x where x.oid = r.oid)
      ) as using_is_exempt_rule,
      using_text is null as no_using,
      is_plain and check_text in (rule, wrapped_rule) as check_is_rule,
      check_text is null as no_check,
      not exists (
        select from pg_catalog.unnest(p.polroles) as role (oid)
        where role.oid = 0 or exists (select from reachable as x where x.oid = role.oid)
      ) as for_others
    from pg_catalog.pg_policy as p
    join reached as t on t.oid = p.polrelid
    cross join lateral (
      select pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using_text,
        pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as check_text,
        pg_catalog.replace(%(rule)s, '{column}', pg_catalog.quote_ident(t.tenant_column)) as rule,
        pg_catalog.replace(%(wrapped_rule)s, '{column}',
          pg_catalog.quote_ident(t.tenant_column)) as wrapped_rule,
        -- A cast or an operator that somebody has added prints like the server's own, of which
        -- nothing is recorded.
        not exists (
          select from pg_catalog.pg_depend as d
          where d.classid = 'pg_catalog.pg_policy'::regclass and d.objid = p.oid
            and d.refclassid in ('pg_catalog.pg_proc'::regclass,
              'pg_catalog.pg_operator'::regclass)) as is_plain
    ) as texts
  ),
  walls as (
    select t.oid,
      coalesce(bool_or(not j.polpermissive and j.polcmd = '*' and j.to_public
        and (j.using_is_rule and (j.no_check or j.check_is_rule)
          or j.using_is_exempt_rule and j.check_is_rule)), false) as walled,
      coalesce(bool_and(not j.polpermissive or j.for_others
        or (j.no_using or j.using_is_rule) and (j.no_check or j.check_is_rule)
          and not (j.no_using and j.no_check)), true) as all_permissive_are_the_rule
    from reached as t left join judged as j on j.polrelid = t.oid
    group by t.oid
  ),
  open_tables as (
    select pg_catalog.format('%%I.%%I', t.nspname, t.relname) as name, pg_catalog.array_remove(array[
      case when not t.relrowsecurity then 'row security is not enabled' end,
      case when not t.relforcerowsecurity then 'row security is not forced' end,
      case when t.relrowsecurity and not pg_catalog.row_security_active(t.oid)
        then 'row security is not active for this role' end,
      case when exists (select from reachable as r where r.oid = t.relowner)
        then 'the role owns it, or is a member of its owner' end,
      case when t.relrowsecurity and not w.walled and not w.all_permissive_are_the_rule
        then 'its policies let other rows through' end,
      case when exists (
          select from reachable as r
          where pg_catalog.has_table_privilege(r.oid, t.oid, 'truncate, references, trigger')
            or pg_catalog.has_any_column_privilege(r.oid, t.oid, 'references'))
        then 'the role may TRUNCATE it, REFERENCE it or plant a trigger' end
    ], null) as reasons
    from reached as t join walls as w using (oid)
  ),

  -- Views, materialized views and definer functions that show tenant tables by another's rights.
  dependencies as (
    select r.ev_class as view_oid, d.refobjid as relation_oid
    from pg_catalog.pg_rewrite as r
    join pg_catalog.pg_depend as d
      on d.classid = 'pg_catalog.pg_rewrite'::regclass and d.objid = r.oid
      and d.refclassid = 'pg_catalog.pg_class'::regclass and d.refobjid <> r.ev_class
  ),
  showing (oid) as (
    select oid from tenant_tables
    union
    select d.view_oid from dependencies as d join showing as s on s.oid = d.relation_oid
  ),
  -- A view may be mapped like a table: as a tenant's if it has the column and shows a tenant table.
  tenant_relations as (
    select nspname, relname, tenant_column from tenant_tables
    union all
    select n.nspname, c.relname, a.attname
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
    where c.relkind in ('v', 'm') and c.oid in (select oid from showing)
      and (a.attname = %(tenant_column)s or exists (
        select from declared as d
        where d.table_name = c.relname and coalesce(d.schema_name, n.nspname) = n.nspname
          and d.column_name = a.attname))
  ),
  open_views as (
    select pg_catalog.format('%%I.%%I', n.nspname, c.relname) as name, array[
      case c.relkind
        when 'm' then 'a materialized view holds rows of all tenants'
        else 'the view runs as its owner, whom row security does not bind, not as security_invoker'
      end] as reasons
    from showing as s
    join pg_catalog.pg_class as c on c.oid = s.oid
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    join pg_catalog.pg_roles as o on o.oid = c.relowner
    where (c.relkind = 'm'
        or c.relkind = 'v' and (o.rolsuper or o.rolbypassrls)
          and not coalesce(c.reloptions && array['security_invoker=true', 'security_invoker=on',
            'security_invoker=1', 'security_invoker=yes'], false))
      and exists (
        select from reachable as r
        where pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
          and (pg_catalog.has_table_privilege(r.oid, c.oid, 'select, insert, update, delete')
            or pg_catalog.has_any_column_privilege(r.oid, c.oid, 'select, insert, update')))
  ),
  open_functions as (
    select pg_catalog.format('%%I.%%I()', n.nspname, p.proname) as name,
      array['the function runs as its owner, whom row security does not bind'] as reasons
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
    join pg_catalog.pg_roles as o on o.oid = p.proowner
    where p.prosecdef and (o.rolsuper or o.rolbypassrls)
      and n.nspname not in ('pg_catalog', 'information_schema')
      and exists (
        select from reachable as r
        where pg_catalog.has_schema_privilege(r.oid, n.oid, 'usage')
          and pg_catalog.has_function_privilege(r.oid, p.oid, 'execute'))
      and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
          and d.deptype = 'e')
  ),
  own_code as (
    select c.name
    from (
      select 'pg_catalog.pg_proc'::regclass as catalog, oid, pronamespace as schema, proname as name,
        proowner as owner
      from pg_catalog.pg_proc
      union all
      select 'pg_catalog.pg_operator'::regclass, oid, oprnamespace, oprname, oprowner
      from pg_catalog.pg_operator
    ) as c
    join pg_catalog.pg_roles as o on o.oid = c.owner
    -- The authenticator's functions look before there is a tenant, and say whose a token is.
    where o.rolname <> %(authenticator)s
      and c.schema not in (
        select n.oid from pg_catalog.pg_namespace as n
        where n.nspname in ('pg_catalog', 'information_schema'))
      and not exists (
        select from pg_catalog.pg_depend as d
        where d.classid = c.catalog and d.objid = c.oid and d.deptype = 'e')
  ),
  -- Functions that promise to change nothing, of whatever arguments: written by the application, and
  -- by a role that this login cannot become.
  steady_functions as (
    select p.proname as name
    from pg_catalog.pg_proc as p
    join pg_catalog.pg_language as l on l.oid = p.prolang
    cross join lateral (
      select p.provolatile <> 'v' and l.lanname in ('sql', 'plpgsql')
        and p.pronamespace not in (
          select n.oid from pg_catalog.pg_namespace as n
          where n.nspname in ('pg_catalog', 'information_schema'))
        and not exists (select from reachable as r where r.oid = p.proowner)
        and not exists (
          select from pg_catalog.pg_depend as d
          where d.classid = 'pg_catalog.pg_proc'::regclass and d.objid = p.oid
            and d.deptype = 'e') as steady
    ) as promise
    group by p.proname
    having bool_and(steady)
  ),
  open_relations as (
    select name, reasons from open_tables where reasons <> '{}'
    union all select name, reasons from open_views
    union all select name, reasons from open_functions
  )
select
  pg_catalog.current_database()::text as database,
  current_user::text as role,
  pg_catalog.current_setting('server_version') as server_version,
  pg_catalog.pg_backend_pid() as pid,
  pg_catalog.current_setting(%(organization_setting)s, true) as organization,
  pg_catalog.current_setting(%(user_setting)s, true) as user,
  exists (select from pg_catalog.pg_extension where extname = 'citus') as citus,
  array(select reason from role_reasons order by rolname) as role_reasons,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(name, reasons) order by name)
    from open_relations) as open_relations,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(nspname, relname, tenant_column)
      order by nspname, relname)
    from tenant_relations) as tenant_tables,
  array(
    select pg_catalog.concat_ws('.', d.schema_name, d.table_name)
    from declared as d
    where not exists (
      select from tenant_relations as t
      where t.relname = d.table_name and t.tenant_column = d.column_name
        and coalesce(d.schema_name, t.nspname) = t.nspname)
    order by 1) as missing_tables,
  (select count(*) from reached) as reachable_tables,
  (select pg_catalog.json_agg(pg_catalog.json_build_array(nspname, relname))
    from tables as t where not exists (select from tenant_tables as x where x.oid = t.oid)
  ) as shared_tables,
  -- What an application's functions and operators do is in their bodies, which nothing looks into.
  (select pg_catalog.json_agg(distinct name) from own_code) as own_code,
  (select pg_catalog.json_agg(name) from steady_functions) as steady_functions

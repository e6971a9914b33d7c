-- Purpose: judge each table that has the tenant column, and what else shows its rows; leaves one
--          JSON object for each in the setting tenantry.tables. Needs tenantry.reach and
--          tenantry.roles.
-- Run by:  any role, as a part of audit.sql, which begins the transaction and sets the parameters.
-- Twice:   yes, it reads only.

with recursive
  parameter as materialized (
    select
      pg_catalog.current_setting('tenantry.tenant_column') as tenant_column,
      pg_catalog.current_setting('tenantry.root_table') as root_table,
      pg_catalog.current_setting('tenantry.root_column') as root_column,
      pg_catalog.current_setting('tenantry.token_table') as token_table,
      pg_catalog.current_setting('tenantry.schemas')::text[] as schemas,
      pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type'))::oid as id_type,
      (select r.oid from pg_catalog.pg_roles as r
       where r.rolname = pg_catalog.current_setting('tenantry.app_role')) as app_role,
      (select r.oid from pg_catalog.pg_roles as r
       where r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')) as authenticator
  ),
  reach as materialized (
    select j.runtime::oid as runtime, j.target::oid as target
    from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.reach')::jsonb)
      as j (runtime bigint, target bigint)
  ),
  runtime as materialized (
    select distinct r.oid, r.rolname, r.rolsuper, r.oid = parameter.app_role as is_app_role
    from reach join pg_catalog.pg_roles as r on r.oid = reach.runtime cross join parameter
  ),
  relation as materialized (
    select c.oid, n.nspname, c.relname, c.relkind, c.relispartition, c.relrowsecurity,
           c.relforcerowsecurity, c.relowner, c.relacl, c.reloptions, named.is_root, named.is_token,
           a.attname, a.atttypid
    from pg_catalog.pg_class as c
    join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
    cross join parameter
    cross join lateral (
      select c.relkind in ('r', 'p')
             and parameter.root_table in (c.relname, n.nspname || '.' || c.relname) as is_root,
             parameter.token_table in (c.relname, n.nspname || '.' || c.relname) as is_token
    ) as named
    left join pg_catalog.pg_attribute as a
      on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      and a.attname = case when named.is_root then parameter.root_column
                           else parameter.tenant_column end
    where c.relkind in ('r', 'p', 'v', 'm', 'f')
      and c.relpersistence <> 't'
      and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
      and (parameter.schemas = '{}' or n.nspname = any (parameter.schemas))
  ),
  dependent (oid) as (
    -- Views of a tenant table, and views of those, whether or not they keep the tenant column.
    select relation.oid from relation where relation.is_root or relation.attname is not null
    union
    select rewrite.ev_class
    from dependent
    join pg_catalog.pg_depend as d
      on d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass and d.refobjid = dependent.oid
      and d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
    join pg_catalog.pg_rewrite as rewrite on rewrite.oid = d.objid
    join pg_catalog.pg_class as c on c.oid = rewrite.ev_class and c.relkind in ('v', 'm')
  ),
  listed as materialized (
    select relation.*, relation.relkind in ('r', 'p') as is_table
    from relation join dependent on dependent.oid = relation.oid
  ),
  -- The one expression, as the server prints it: plain, or with its right side in a sub-select.
  expected as materialized (
    select listed.oid,
           array[ '(' || left_side || ' = ' || right_side || ')',
                  '(' || left_side || ' = ( SELECT ' || right_side || ' AS "nullif"))' ] as accepted
    from listed
    join pg_catalog.pg_type as t on t.oid = listed.atttypid
    cross join parameter
    cross join lateral (
      select
        case when (t.typtype = 'd' and t.typbasetype = parameter.id_type)
                  or (t.oid = 'pg_catalog.varchar'::pg_catalog.regtype
                      and parameter.id_type = 'pg_catalog.text'::pg_catalog.regtype)
          then pg_catalog.format('(%I)::%s', listed.attname,
                                 pg_catalog.format_type(parameter.id_type, null))
          else pg_catalog.quote_ident(listed.attname) end as left_side,
        pg_catalog.format('NULLIF(current_setting(%L::text, true), ''''::text)',
          pg_catalog.current_setting('tenantry.organization_setting')) as setting
    ) as side
    cross join lateral (
      select case when parameter.id_type = 'pg_catalog.text'::pg_catalog.regtype then side.setting
        else pg_catalog.format('(%s)::%s', side.setting,
                               pg_catalog.format_type(parameter.id_type, null)) end as right_side
    ) as cast_side
    where listed.is_table
  ),
  -- The token table's own form: the function that looks up a token runs before a tenant is known.
  excepted as materialized (
    select expected.oid,
           array(select pg_catalog.format('(%s OR (CURRENT_USER = %L::name))', form,
                          pg_catalog.current_setting('tenantry.authenticator_role'))
                 from pg_catalog.unnest(expected.accepted) as form) as accepted
    from expected join listed on listed.oid = expected.oid and listed.is_token
    cross join parameter
    where parameter.authenticator is not null
  ),
  policy as materialized (
    select p.polrelid, p.polname, p.polpermissive, p.polroles, command.name as command,
           command.name = 'all' as for_all, p.polroles = '{0}' as to_public,
           array_to_string(array(
             select coalesce(r.rolname, 'PUBLIC') from pg_catalog.unnest(p.polroles) as o (oid)
             left join pg_catalog.pg_roles as r on r.oid = o.oid order by 1), ', ') as roles,
           text.using_text, text.check_text,
           -- A command without a USING (insert) has nothing to compare, and a missing check is USING.
           coalesce(text.using_text = any (expected.accepted), p.polcmd = 'a') as using_exact,
           coalesce(text.check_text = any (expected.accepted),
                    p.polcmd in ('r', 'd') or text.using_text = any (expected.accepted),
                    false) as check_exact,
           coalesce(text.using_text = any (excepted.accepted)
                    and text.check_text = any (expected.accepted), false) as excepted
    from pg_catalog.pg_policy as p
    join listed on listed.oid = p.polrelid
    left join expected on expected.oid = p.polrelid
    left join excepted on excepted.oid = p.polrelid
    cross join lateral (
      select case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
               when 'd' then 'delete' else 'all' end as name
    ) as command
    cross join lateral (
      select pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using_text,
             pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as check_text
    ) as text
  ),
  judged_policy as (
    select policy.polrelid, policy.polname, policy.polpermissive, policy.excepted, policy.for_all,
           policy.to_public,
           policy.using_exact and policy.check_exact as exact,
           policy.polpermissive and policy.command = 'select' and policy.using_text = 'true'
             and policy.polroles = array[parameter.authenticator] as for_authenticator,
           pg_catalog.format('%s (%s, %s, to %s)', policy.polname,
             case when policy.polpermissive then 'permissive' else 'restrictive' end,
             policy.command, policy.roles) as label,
           pg_catalog.concat_ws(' and ',
             case when not policy.for_all then 'is for ' || policy.command || ' alone' end,
             case when not policy.to_public then 'is scoped to ' || policy.roles end,
             case when not policy.using_exact then 'using is ' || using_says.says end,
             case when not policy.check_exact and policy.check_text is not null
               then 'with check is ' || check_says.says end) as differs
    from policy
    cross join parameter
    cross join lateral (
      select coalesce(policy.using_text, 'missing') || case
        when policy.using_text = 'true' then ', all rows'
        when policy.using_text ~* '(\mis null\M|\mcoalesce\M|\mis not distinct from\M|\mcase\M)'
          then ', which can be true without a tenant' else '' end as says
    ) as using_says
    cross join lateral (
      select policy.check_text || case
        when policy.check_text = 'true' then ', all rows'
        when policy.check_text ~* '(\mis null\M|\mcoalesce\M|\mis not distinct from\M|\mcase\M)'
          then ', which can be true without a tenant' else '' end as says
    ) as check_says
  ),
  wall as materialized (
    select listed.oid,
           coalesce(pg_catalog.bool_or(not p.polpermissive and p.for_all and p.to_public and p.exact),
                    false) as exact,
           coalesce(pg_catalog.bool_or(not p.polpermissive and p.for_all and p.to_public
                                       and p.excepted), false) as excepted,
           coalesce(pg_catalog.bool_or(not p.polpermissive), false) as any_wall,
           coalesce(pg_catalog.bool_or(p.polpermissive), false) as any_permissive,
           pg_catalog.array_remove(pg_catalog.array_agg(
             case when not p.polpermissive and not (p.for_all and p.to_public and p.exact)
               then pg_catalog.format('wall %s: %s', p.polname, p.differs) end
             order by p.polname), null) as wall_faults,
           pg_catalog.array_remove(pg_catalog.array_agg(
             case when p.polpermissive and not p.exact and not p.for_authenticator
               then pg_catalog.format('policy %s: %s', p.polname, p.differs) end
             order by p.polname), null) as permissive_faults,
           pg_catalog.count(*) filter (where p.for_authenticator) as for_authenticator,
           pg_catalog.string_agg(p.label, E'\n' order by p.polpermissive desc, p.polname) as policies
    from listed left join judged_policy as p on p.polrelid = listed.oid
    group by listed.oid
  ),
  -- Effective privileges: granted to the role, to PUBLIC, or to a role it inherits from.
  held as materialized (
    select listed.oid, runtime.rolname, runtime.is_app_role, privilege.position, privilege.name,
           privilege.name in ('TRUNCATE', 'REFERENCES', 'TRIGGER') as unguarded,
           pg_catalog.bool_or(runtime.is_app_role) over (partition by listed.oid, privilege.name)
             as app_has
    from listed
    cross join runtime
    cross join (values (1, 'SELECT'), (2, 'INSERT'), (3, 'UPDATE'), (4, 'DELETE'), (5, 'TRUNCATE'),
                       (6, 'REFERENCES'), (7, 'TRIGGER')) as privilege (position, name)
    where case when privilege.name in ('DELETE', 'TRUNCATE', 'TRIGGER')
            then pg_catalog.has_table_privilege(runtime.oid, listed.oid, privilege.name)
            else pg_catalog.has_any_column_privilege(runtime.oid, listed.oid, privilege.name) end
  ),
  held_by_app as materialized (
    select held.oid,
           pg_catalog.string_agg(pg_catalog.lower(held.name)
             || case when held.unguarded then '!' else '' end, ' ' order by held.position)
             filter (where held.is_app_role) as of_app
    from held
    group by held.oid
  ),
  -- What the role has its logins have: they are named for what they have beyond it.
  held_unguarded as materialized (
    select each.oid, pg_catalog.array_agg(each.fault order by each.is_app_role desc, each.rolname)
             as faults
    from (
      select held.oid, held.rolname, held.is_app_role,
             pg_catalog.format('%s has %s, which row security does not cover', held.rolname,
               pg_catalog.string_agg(held.name, ', ' order by held.position)) as fault
      from held
      where held.unguarded and (held.is_app_role or not held.app_has)
      group by held.oid, held.rolname, held.is_app_role
    ) as each
    group by each.oid
  ),
  privileges as materialized (
    select listed.oid, held_by_app.of_app, held_by_app.oid is not null as any_held,
           coalesce(held_unguarded.faults, '{}') as unguarded, granted.of_public
    from listed
    left join held_by_app on held_by_app.oid = listed.oid
    left join held_unguarded on held_unguarded.oid = listed.oid
    cross join lateral (
      select pg_catalog.string_agg(distinct pg_catalog.lower(acl.privilege_type), ' ') as of_public
      from (select listed.relacl as list
            union all
            select a.attacl from pg_catalog.pg_attribute as a
            where a.attrelid = listed.oid and a.attacl is not null and not a.attisdropped) as lists
      cross join lateral pg_catalog.aclexplode(lists.list) as acl
      where acl.grantee = 0
    ) as granted
  ),
  -- What would make the exception on the token table more than it says it is.
  authenticator as materialized (
    select pg_catalog.array_remove(array[
        case when r.rolcanlogin then pg_catalog.format('%s can log in', r.rolname) end,
        case when r.rolsuper then pg_catalog.format('%s is a superuser', r.rolname) end,
        case when r.rolbypassrls then pg_catalog.format('%s has BYPASSRLS', r.rolname) end,
        (select pg_catalog.format('%s may also use %s', r.rolname,
                  pg_catalog.string_agg(listed.relname, ', ' order by listed.nspname, listed.relname))
         from listed
         where not listed.is_token
           and (pg_catalog.has_table_privilege(r.oid, listed.oid, 'DELETE, TRUNCATE, TRIGGER')
                or pg_catalog.has_any_column_privilege(r.oid, listed.oid,
                                                       'SELECT, INSERT, UPDATE, REFERENCES'))
         having pg_catalog.count(*) > 0),
        (select pg_catalog.format('%s may do more than SELECT', r.rolname)
         from listed
         where listed.is_token
           and (pg_catalog.has_table_privilege(r.oid, listed.oid, 'DELETE, TRUNCATE, TRIGGER')
                or pg_catalog.has_any_column_privilege(r.oid, listed.oid,
                                                       'INSERT, UPDATE, REFERENCES'))
         limit 1),
        (select pg_catalog.format('function %s of %s has no pinned search_path with pg_temp last',
                  pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::text, ', '), r.rolname)
         from pg_catalog.pg_proc as p
         where p.proowner = r.oid and p.prosecdef
           and not exists (
             select from pg_catalog.unnest(p.proconfig) as setting
             where setting ~ '^search_path=(""|(.*, *)?"?pg_temp"?)$')
         having pg_catalog.count(*) > 0)
      ], null)
      || array(select pg_catalog.format('%s can become %s', runtime.rolname, r.rolname)
               from reach join runtime on runtime.oid = reach.runtime
               where reach.target = r.oid order by 1) as faults
    from parameter join pg_catalog.pg_roles as r on r.oid = parameter.authenticator
  ),
  owner_reached as materialized (
    select listed.oid,
           pg_catalog.array_agg(
             case when runtime.oid = listed.relowner
               then pg_catalog.format('%s owns it and can switch row security off', runtime.rolname)
               else pg_catalog.format('%s can become its owner %s and switch row security off',
                                      runtime.rolname, owner.rolname) end
             order by runtime.rolname) as faults
    from listed
    join pg_catalog.pg_roles as owner on owner.oid = listed.relowner
    join reach on reach.target = listed.relowner
    join runtime on runtime.oid = reach.runtime
    where listed.is_table
    group by listed.oid
  ),
  bypassing as materialized (
    select array(
      select pg_catalog.format('%s %s', j.rolname, fault)
      from pg_catalog.jsonb_to_recordset(pg_catalog.current_setting('tenantry.roles')::jsonb)
        as j (rolname text, faults jsonb)
      cross join lateral pg_catalog.jsonb_array_elements_text(j.faults) as fault
      where fault ~ '(superuser|BYPASSRLS)' order by 1) as faults
  ),
  judged as (
    select listed.*, wall.policies, privileges.of_app, privileges.of_public, verdict.faults,
           verdict.notes
    from listed
    join wall on wall.oid = listed.oid
    join privileges on privileges.oid = listed.oid
    cross join bypassing
    left join authenticator on true
    left join owner_reached on owner_reached.oid = listed.oid
    cross join lateral (
      -- Nobody acting as the application may touch a partition on its own: the parent's wall holds.
      select listed.relispartition and listed.is_table and not privileges.any_held as unreachable,
             wall.excepted and not wall.exact as excepted
    ) as state
    cross join lateral (
      select
        case
          when listed.is_table and listed.attname is null then
            array[pg_catalog.format('it has no column %s to compare',
                                    pg_catalog.current_setting('tenantry.root_column'))]
          when listed.is_table and state.unreachable then '{}'
          when listed.is_table then
            pg_catalog.array_remove(array[
              case when not listed.relrowsecurity then 'row security is off' end,
              case when not listed.relforcerowsecurity
                then 'row security is not forced on the owner' end,
              case when not wall.any_wall then 'no restrictive policy (wall)' end
            ], null)
            || case when wall.exact or wall.excepted then '{}'
                 else wall.wall_faults || wall.permissive_faults end
            || case when not state.excepted then '{}'
                 else wall.permissive_faults || authenticator.faults
                   || case when wall.for_authenticator > 1
                        then array['more than one policy for the authenticator'] else '{}' end end
            || privileges.unguarded
          when not privileges.any_held then '{}'
          when listed.relkind = 'v' and not exists (
              select from pg_catalog.pg_options_to_table(listed.reloptions) as o
              where o.option_name = 'security_invoker' and o.option_value::boolean) then
            array['a view without security_invoker shows what its owner may see']
          when listed.relkind = 'm' then
            array['a materialized view has no row security and is granted']
          when listed.relkind = 'f' then array['a foreign table has no row security and is granted']
          else '{}'
        end
        || coalesce(owner_reached.faults, '{}')
        || case when listed.is_table and not state.unreachable then bypassing.faults else '{}' end
          as faults,
        pg_catalog.array_remove(array[
          case when state.unreachable
            then 'a partition without grants, reached through its parent alone' end,
          case when listed.is_table and state.excepted
            then pg_catalog.format('allow-listed exception: %s may select every row',
                   pg_catalog.current_setting('tenantry.authenticator_role')) end,
          case when listed.is_table and wall.any_wall and not wall.any_permissive
            then 'no permissive policy: nobody sees a row' end,
          case when not listed.is_table and not privileges.any_held
            then 'not granted to the application' end
        ], null)
        || case when wall.exact
             then array(select fault || ' (the wall contains it)'
                        from pg_catalog.unnest(wall.permissive_faults) as fault)
             else '{}' end as notes
    ) as verdict
  )
select pg_catalog.set_config('tenantry.tables', coalesce(pg_catalog.jsonb_agg(
  pg_catalog.jsonb_build_object(
    'schema', judged.nspname,
    'name', judged.relname,
    'kind', case judged.relkind when 'v' then 'view' when 'm' then 'materialized view'
      when 'f' then 'foreign table' else 'table' end,
    'is_root', judged.is_root,
    'row_security', case
      when not judged.is_table then case judged.relkind when 'v' then 'view'
        when 'm' then 'materialized view' else 'foreign table' end
      when judged.relrowsecurity and judged.relforcerowsecurity then 'on, forced'
      when judged.relrowsecurity then 'on, not forced'
      when judged.relforcerowsecurity then 'OFF, forced'
      else 'OFF' end,
    'policies', judged.policies,
    'of_app', judged.of_app,
    'of_public', judged.of_public,
    'owner', pg_catalog.pg_get_userbyid(judged.relowner),
    'faults', judged.faults,
    'notes', judged.notes)
  order by judged.nspname, judged.relname)::text, '[]'), true)
from judged
\gset tenantry_ignored_

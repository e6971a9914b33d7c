-- Purpose: judges each policy on a tenant table; leaves them in the setting tenantry.policies, a JSON
--          list of {oid, table, name, permissive, command, to_public, roles, exact, excepted,
--          for_authenticator, differs}. `table` is the table's oid; `command` one of all, select,
--          insert, update, delete; `exact` says that every expression is the one rule; `excepted`
--          that it is the token table's form of it; `for_authenticator` that it is the policy which
--          lets the authenticator read tokens; `differs` tells, of any other, in what.
-- Run by:  any role, in the audit's transaction, after facts/tables.sql.
-- Twice:   yes, it reads only.

with
  parameter as materialized (
    select
      pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type'))::oid as id_type,
      (select r.oid from pg_catalog.pg_roles as r
       where r.rolname = pg_catalog.current_setting('tenantry.authenticator_role')) as authenticator
  ),
  tenant_table as materialized (
    select t.oid::oid as oid, t."column", t.attnum, t.is_token
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, "column" text, attnum smallint, is_token boolean)
  ),
  -- The one rule as the server prints it: plain, or with its right side in a sub-select; and the
  -- token table's form of both, since the function that looks up a token runs before there is a
  -- tenant.
  rule as materialized (
    select t.oid, form.plain, form.wrapped,
           case when t.is_token and parameter.authenticator is not null
             then pg_catalog.format('(%s OR (CURRENT_USER = %L::name))', form.plain,
                    pg_catalog.current_setting('tenantry.authenticator_role')) end as plain_excepted,
           case when t.is_token and parameter.authenticator is not null
             then pg_catalog.format('(%s OR (CURRENT_USER = %L::name))', form.wrapped,
                    pg_catalog.current_setting('tenantry.authenticator_role')) end
             as wrapped_excepted
    from tenant_table as t
    join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = t.attnum
    join pg_catalog.pg_type as y on y.oid = a.atttypid
    cross join parameter
    cross join lateral (
      select
        case when (y.typtype = 'd' and y.typbasetype = parameter.id_type)
                  or (y.oid = 'pg_catalog.varchar'::pg_catalog.regtype
                      and parameter.id_type = 'pg_catalog.text'::pg_catalog.regtype)
          then pg_catalog.format('(%I)::%s', t."column",
                                 pg_catalog.format_type(parameter.id_type, null))
          else pg_catalog.quote_ident(t."column") end as left_side,
        pg_catalog.format('NULLIF(current_setting(%L::text, true), ''''::text)',
          pg_catalog.current_setting('tenantry.organization_setting')) as setting
    ) as side
    cross join lateral (
      select case when parameter.id_type = 'pg_catalog.text'::pg_catalog.regtype then side.setting
        else pg_catalog.format('(%s)::%s', side.setting,
                               pg_catalog.format_type(parameter.id_type, null)) end as right_side
    ) as cast_side
    cross join lateral (
      select '(' || left_side || ' = ' || right_side || ')' as plain,
             '(' || left_side || ' = ( SELECT ' || right_side || ' AS "nullif"))' as wrapped
    ) as form
  ),
  policy as materialized (
    select p.oid, p.polrelid, p.polname, p.polpermissive, p.polcmd, p.polroles,
           pg_catalog.pg_get_expr(p.polqual, p.polrelid) as using_text,
           pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid) as check_text
    from pg_catalog.pg_policy as p
    where p.polrelid in (select t.oid from tenant_table as t)
  ),
  judged as materialized (
    select policy.*,
           case policy.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update'
             when 'd' then 'delete' else 'all' end as command,
           -- An INSERT policy has no USING; a check that is left out is the USING.
           coalesce(policy.using_text in (rule.plain, rule.wrapped), policy.polcmd = 'a', false)
             as using_exact,
           coalesce(policy.check_text in (rule.plain, rule.wrapped),
                    policy.polcmd in ('r', 'd')
                    or policy.using_text in (rule.plain, rule.wrapped), false) as check_exact,
           coalesce(policy.using_text in (rule.plain_excepted, rule.wrapped_excepted)
                    and policy.check_text in (rule.plain, rule.wrapped), false) as excepted,
           policy.polpermissive and policy.polcmd = 'r' and policy.using_text = 'true'
             and rule.plain_excepted is not null
             and policy.polroles = array[parameter.authenticator] as for_authenticator
    from policy
    left join rule on rule.oid = policy.polrelid
    cross join parameter
  )
select
where pg_catalog.set_config('tenantry.policies',
  (select coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
            'oid', j.oid::bigint,
            'table', j.polrelid::bigint,
            'name', j.polname,
            'permissive', j.polpermissive,
            'command', j.command,
            'to_public', j.polroles = '{0}',
            'roles', (select pg_catalog.string_agg(coalesce(r.rolname, 'PUBLIC'), ', '
                               order by r.rolname)
                      from pg_catalog.unnest(j.polroles) as o (oid)
                      left join pg_catalog.pg_roles as r on r.oid = o.oid),
            'exact', j.using_exact and j.check_exact,
            'excepted', j.excepted,
            'for_authenticator', coalesce(j.for_authenticator, false),
            'differs', nullif(pg_catalog.concat_ws(' and ',
              case when not j.using_exact then 'using is ' || using_says.says end,
              case when not j.check_exact and j.check_text is not null
                then 'with check is ' || check_says.says end), ''))
          order by j.oid)::text, '[]')
   from judged as j
   cross join lateral (
     select case when not j.using_exact then coalesce(j.using_text, 'missing') || case
       when j.using_text = 'true' then ', all rows'
       when j.using_text ~* '(\mis null\M|\mcoalesce\M|\mis not distinct from\M|\mcase\M)'
         then ', which can be true without a tenant' else '' end end as says
   ) as using_says
   cross join lateral (
     select case when not j.check_exact then j.check_text || case
       when j.check_text = 'true' then ', all rows'
       when j.check_text ~* '(\mis null\M|\mcoalesce\M|\mis not distinct from\M|\mcase\M)'
         then ', which can be true without a tenant' else '' end end as says
   ) as check_says),
  true) is null

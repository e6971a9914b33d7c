-- Purpose: judges each policy on a tenant table; leaves them in the setting tenantry.policies, a JSON
--          list of {oid, table, name, permissive, command, to_public, roles, exact, excepted,
--          for_authenticator, mimics, differs}. `table` is the table's oid; `command` one of all,
--          select, insert, update, delete; `exact` says that every expression is the one rule;
--          `excepted` that it is the token table's form of it; `for_authenticator` that it is the
--          policy which lets the authenticator read tokens; `mimics` that it prints like the rule and
--          calls what is not the server's own; `differs` tells, of any that is not the rule, in what.
-- Run by:  any role, in the audit's transaction, after facts/tables.sql.
-- Twice:   yes, it reads only.

with recursive
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
  -- The column's type below its domains, and the types that the server compares with the id's as they
  -- are, without a function that somebody else could have written.
  base (oid, type_oid, typtype, typbasetype) as (
    select t.oid, y.oid, y.typtype, y.typbasetype
    from tenant_table as t
    join pg_catalog.pg_attribute as a on a.attrelid = t.oid and a.attnum = t.attnum
    join pg_catalog.pg_type as y on y.oid = a.atttypid
    union all
    select base.oid, y.oid, y.typtype, y.typbasetype
    from base join pg_catalog.pg_type as y on y.oid = base.typbasetype
    where base.typtype = 'd'
  ),
  comparable as materialized (
    select distinct base.oid, base.type_oid
    from base cross join parameter
    cross join (values
        (array['pg_catalog.int2', 'pg_catalog.int4', 'pg_catalog.int8']::pg_catalog.regtype[]::oid[]),
        (array['pg_catalog.text', 'pg_catalog.varchar', 'pg_catalog.bpchar']
           ::pg_catalog.regtype[]::oid[])) as family (types)
    where base.typtype <> 'd'
      and (base.type_oid = parameter.id_type
           or parameter.id_type = any (family.types) and base.type_oid = any (family.types))
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
    join comparable on comparable.oid = t.oid
    cross join parameter
    cross join lateral (
      -- A domain shows as its base type; a text with a length is compared as one without.
      select
        case when comparable.type_oid <> parameter.id_type
                  and parameter.id_type = 'pg_catalog.text'::pg_catalog.regtype
                  or a.atttypid <> comparable.type_oid
          then pg_catalog.format('(%I)::%s', t."column", pg_catalog.format_type(
                 case when parameter.id_type = 'pg_catalog.text'::pg_catalog.regtype
                   then parameter.id_type else comparable.type_oid end, null))
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
  -- What a policy calls and is not the server's own, whatever name it goes by: a cast and an operator
  -- that somebody has added print like the server's. Of the server's own nothing is recorded.
  planted as materialized (
    select distinct d.objid as oid
    from pg_catalog.pg_depend as d
    where d.classid = 'pg_catalog.pg_policy'::pg_catalog.regclass
      and d.refclassid in ('pg_catalog.pg_proc'::pg_catalog.regclass,
                           'pg_catalog.pg_operator'::pg_catalog.regclass,
                           'pg_catalog.pg_cast'::pg_catalog.regclass)
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
             and policy.polroles = array[parameter.authenticator] as for_authenticator,
           coalesce(policy.using_text in (likeness.plain, likeness.wrapped, likeness.plain_excepted,
                                          likeness.wrapped_excepted), false)
             or coalesce(policy.check_text in (likeness.plain, likeness.wrapped), false) as mimics
    from policy
    left join planted on planted.oid = policy.oid
    left join rule on rule.oid = policy.polrelid and planted.oid is null
    left join rule as likeness on likeness.oid = policy.polrelid and planted.oid is not null
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
            'mimics', j.mimics,
            'differs', nullif(pg_catalog.concat_ws(' and ',
              case when not j.using_exact then 'using is ' || using_says.says end,
              case when not j.check_exact and j.check_text is not null
                then 'with check is ' || check_says.says end), ''))
          order by j.oid)::text, '[]')
   from judged as j
   cross join lateral (
     select case when not j.using_exact then coalesce(j.using_text, 'missing') || case
       when j.mimics
         then ', in which a cast or an operator is not the server''s own'
       when j.using_text = 'true' then ', all rows'
       when j.using_text ~* '(\mis null\M|\mcoalesce\M|\mis not distinct from\M|\mcase\M)'
         then ', which can be true without a tenant' else '' end end as says
   ) as using_says
   cross join lateral (
     select case when not j.check_exact then j.check_text || case
       when j.mimics
         then ', in which a cast or an operator is not the server''s own'
       when j.check_text = 'true' then ', all rows'
       when j.check_text ~* '(\mis null\M|\mcoalesce\M|\mis not distinct from\M|\mcase\M)'
         then ', which can be true without a tenant' else '' end end as says
   ) as check_says),
  true) is null

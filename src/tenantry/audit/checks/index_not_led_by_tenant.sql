-- Purpose: finds indexes of tenant tables that are not led by the tenant column: what they find, and
--          how long they look, depends on the rows of all tenants.
-- Run by:  any role, in the audit's transaction, after facts/*.sql.
-- Twice:   yes, it reads only.

with
  tenant_table as materialized (
    select t.oid::oid as oid, t.object, t."column", t.attnum, t.is_token
    from pg_catalog.json_to_recordset(pg_catalog.current_setting('tenantry.tables')::json)
      as t (oid bigint, object text, "column" text, attnum smallint, is_root boolean,
            is_token boolean)
    -- A row of the root table is a tenant: there is nothing to lead to.
    where t.attnum is not null and not t.is_root
  )
select
  'index_not_led_by_tenant' as check_id, 'warning' as severity, 'index' as object_type,
  pg_catalog.format('%I on %s', c.relname, t.object) as object,
  pg_catalog.format('led by something else than %I: its use takes the time of all tenants'' rows, and '
                    'tells of them', t."column") as problem,
  pg_catalog.format('lead the index with %I', t."column") as remedy,
  -- Only what stands by itself: a constraint's index goes with the constraint, a partition's with the
  -- whole.
  case when c.relkind = 'i' and am.amname = 'btree' and not t.attnum = any (i.indkey)
            and pg_catalog.starts_with(definition.text, definition.head)
            and not exists (select from pg_catalog.pg_constraint as k
                            where k.conindid = i.indexrelid)
    then pg_catalog.format('drop index %I.%I; %s(%I, %s;', n.nspname, c.relname,
           pg_catalog.left(definition.head, -1), t."column",
           pg_catalog.substr(definition.text, pg_catalog.length(definition.head) + 1)) end
    as statement
from tenant_table as t
join pg_catalog.pg_index as i on i.indrelid = t.oid
join pg_catalog.pg_class as c on c.oid = i.indexrelid
join pg_catalog.pg_namespace as n on n.oid = c.relnamespace
join pg_catalog.pg_am as am on am.oid = c.relam
cross join lateral (
  select pg_catalog.pg_get_indexdef(i.indexrelid) as text,
         pg_catalog.format('CREATE%s INDEX %I ON %s USING %s (',
           case when i.indisunique then ' UNIQUE' end, c.relname, t.object, am.amname) as head
) as definition
where i.indkey[0] <> t.attnum
  -- Others do not search by an order of columns.
  and am.amname in ('btree', 'hash')
  and not c.relispartition
  -- A key without the tenant column at all is unique_without_tenant's affair.
  and not (i.indisunique
           and not t.attnum = any ((i.indkey::smallint[])[0:i.indnkeyatts - 1]))
  -- A token is looked up before there is a tenant, by equality alone.
  and not (t.is_token and am.amname = 'hash')
order by t.object, c.relname

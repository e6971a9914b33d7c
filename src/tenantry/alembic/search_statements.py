"""The SQL of searches, the same online and as a script."""

from collections.abc import Iterator
from textwrap import dedent
from typing import Final

from sqlalchemy import DDL

from tenantry.config import TenancyConfig
from tenantry.rls import (
    Search,
    create_policy,
    qualified_name,
    quote_identifier,
    quote_literal,
)

_ATTRIBUTES: Final = (
    "rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication"
)


def create_search(search: Search, config: TenancyConfig) -> Iterator[DDL]:
    """Yield the statements that create a search, once its table and role are found fit for it."""
    table = qualified_name(search.table, search.schema)
    role = quote_identifier(search.role)
    role_text = quote_literal(search.role)
    policy = search.policy(config)
    yield _check_table(search, table, policy.name)
    yield _admit_searcher(search, config)
    yield _ddl(f"grant select on table {table} to {role}")
    yield _ddl(create_policy(policy, table))
    yield _create_function(search, config)
    function = search.signature
    yield _ddl(f"comment on function {function} is {quote_literal(search.description)}")
    yield _ddl(f"revoke all on function {function} from public")
    yield _ddl(f"grant execute on function {function} to {quote_identifier(config.app_role)}")
    yield _ddl(f"alter function {function} owner to {role}")
    yield _as_login(
        f"""
          execute pg_catalog.format('revoke create on schema %I from %I', place, {role_text});
          {_dismissal(search.name, config)}
        """,
        search.schema,
    )


def drop_search(
    name: str, table_name: str, schema: str | None, config: TenancyConfig
) -> Iterator[DDL]:
    """Yield the statements that drop a search, its policy and its role's rights."""
    table, role = qualified_name(table_name, schema), quote_identifier(Search.role_of(name))
    yield _as_login(
        f"""
          {_admission(name, config)}
          set local role {role};
          drop function {qualified_name(name, schema)};
          set local role none;
          execute pg_catalog.format('revoke usage on schema %I from {role}', place);
          {_dismissal(name, config)}
        """,
        schema,
    )
    policy = quote_identifier(Search.policy_of(name, table_name))
    yield _ddl(f"drop policy {policy} on {table}")
    yield _ddl(f"revoke select on table {table} from {role}")


def _admission(name: str, config: TenancyConfig) -> str:
    """Return what lets the owner become the searcher for a moment, to hand a function over.

    No longer, since the searcher's policies are for its members too: up to PostgreSQL 15 a member
    cannot do without what it inherits.
    """
    role, owner = quote_literal(Search.role_of(name)), quote_literal(config.owner_role)
    return f"""
          if not pg_catalog.pg_has_role({owner}, {role}, 'member') then
            execute pg_catalog.format('grant %I to %I', {role}, {owner})
              || case when pg_catalog.current_setting('server_version_num')::integer < 160000
                   then '' else ' with inherit false, set true' end;
            perform pg_catalog.set_config('tenantry.admitted', {role}, true);
          end if;
    """.strip()


def _dismissal(name: str, config: TenancyConfig) -> str:
    """Return what ends the membership; one that somebody else has granted stays."""
    role, owner = quote_literal(Search.role_of(name)), quote_literal(config.owner_role)
    return f"""
          if pg_catalog.current_setting('tenantry.admitted', true) = {role} then
            execute pg_catalog.format('revoke %I from %I', {role}, {owner});
          end if;
    """.strip()


def _create_function(search: Search, config: TenancyConfig) -> DDL:
    """Return the statement that creates the function, in the current schema if none is named."""
    if search.schema is not None:
        return _ddl(search.function(quote_identifier(search.schema), config))
    place = "\x00"  # which is in no name
    function = search.function(place, config).replace("%", "%%").replace(place, "%1$I")
    return _block(f"""
        begin
          execute pg_catalog.format({quote_literal(function)}, current_schema());
        end
    """)


def _check_table(search: Search, table: str, policy: str) -> DDL:
    """Return the block that refuses a table or column that is not what the search takes it for."""
    relation = f"{quote_literal(table)}::pg_catalog.regclass"
    subject = f"{search.table}.{search.column}"
    return _block(f"""
        declare
          declared constant oid := {quote_literal(search.type)}::pg_catalog.regtype;
          found oid;
          other text;
        begin
          select a.atttypid into found from pg_catalog.pg_attribute as a
          where a.attrelid = {relation} and a.attname = {quote_literal(search.column)};
          if found is distinct from declared then
            raise datatype_mismatch using message = pg_catalog.format(
              'column %s is of type %s, and its search is declared for %s',
              {quote_literal(subject)}, pg_catalog.format_type(found, null), declared::regtype);
          end if;
          -- Operators of other types are somebody's own, and could tell of each row.
          select pg_catalog.format_type(t.oid, null) into other
          from pg_catalog.pg_type as c
          join pg_catalog.pg_type as t on t.oid = case c.typcategory when 'A' then c.typelem
                                                                     else c.oid end
          where c.oid = declared
            and t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace
            and t.typtype <> 'e'
            and not exists (
              select from pg_catalog.pg_depend as d
              join pg_catalog.pg_extension as e on e.oid = d.refobjid and e.extname = 'citext'
              where d.classid = 'pg_catalog.pg_type'::pg_catalog.regclass and d.objid = t.oid
                and d.deptype = 'e');
          if other is not null then
            raise feature_not_supported using message = pg_catalog.format(
              'column %s cannot be searched: %s is neither built in, nor an enum, nor citext',
              {quote_literal(subject)}, other);
          end if;
          if not exists (select from pg_catalog.pg_class as c
                         where c.oid = {relation} and c.relrowsecurity and c.relforcerowsecurity)
            or not exists (select from pg_catalog.pg_policy as p
                           where p.polrelid = {relation} and not p.polpermissive
                             and p.polroles = '{{0}}' and p.polcmd = '*')
          then
            raise invalid_table_definition using message = pg_catalog.format(
              'table %s has no wall, and a search is no substitute: op.isolate_table() first',
              {quote_literal(table)});
          end if;
          select p.polname into other from pg_catalog.pg_policy as p
          where p.polrelid = {relation} and not p.polpermissive and p.polroles = '{{0}}'
            and p.polname::text collate "C" < {quote_literal(policy)} limit 1;
          if other is not null then
            raise invalid_object_definition using message = pg_catalog.format(
              'restrictive policy %I of %s comes before %I, and keeps it from the index: rename it',
              other, {quote_literal(table)}, {quote_literal(policy)});
          end if;
        end
    """)


def _admit_searcher(search: Search, config: TenancyConfig) -> DDL:
    """Return the block that makes the role, as whoever connected, and lets it own the function."""
    role, owner = quote_literal(search.role), quote_literal(config.owner_role)
    return _as_login(
        f"""
          if not exists (select from pg_catalog.pg_roles where rolname = {role}) then
            begin
              create role {quote_identifier(search.role)} nologin;
            exception
              -- Another database of the server may be migrated at this moment: its role will do.
              when duplicate_object or unique_violation then
                null;
              when insufficient_privilege then
                raise insufficient_privilege using message = pg_catalog.format(
                  'role %I is missing, which %I may not create: a DBA can do it with '
                  'create role %1$I; grant %1$I to %3$I', {role}, session_user, {owner});
            end;
          end if;
          if exists (select from pg_catalog.pg_roles
                     where rolname = {role} and ({_ATTRIBUTES}))
            or exists (select from pg_catalog.pg_auth_members as m
                       join pg_catalog.pg_roles as r on r.oid = m.member
                       where r.rolname = {role})
          then
            raise invalid_role_specification using message = pg_catalog.format(
              'role %I may more than a search may: it must not log in, have any attribute or be a '
              'member of anything', {role});
          end if;
          {_admission(search.name, config)}
          execute pg_catalog.format('grant usage, create on schema %I to %I', place, {role});
        """,
        search.schema,
    )


def _as_login(body: str, schema: str | None) -> DDL:
    """Return a block that runs as whoever connected, who may make roles and grant on schemas."""
    place = "current_schema()" if schema is None else quote_literal(schema)
    return _block(f"""
        declare
          before constant text := current_user;
          place constant text := {place};
        begin
          set local role none;
          {body.strip()}
          if before <> session_user then
            execute pg_catalog.format('set local role %I', before);
          end if;
        end
    """)


def _block(body: str) -> DDL:
    """Return an anonymous block, between dollar signs that no name inside it can close."""
    tag = "$tenantry$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return _ddl(f"do {tag}\n{dedent(body).strip()}\n{tag}")


def _ddl(sql: str) -> DDL:
    """Return the statement as it stands: DDL() looks for percent signs, but not for parameters."""
    return DDL(sql.replace("%", "%%"))  # type: ignore[no-untyped-call]

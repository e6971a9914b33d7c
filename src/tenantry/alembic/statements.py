"""The SQL of the operations, the same online and as a script.

Each block that may meet a missing privilege catches it and tells it as a warning, so that a
migration does what its role may do and names the script for the rest.
"""

from collections.abc import Iterator, Sequence
from textwrap import dedent
from typing import Final

from sqlalchemy import DDL

from tenantry.config import TenancyConfig
from tenantry.rls import (
    TableIsolation,
    create_isolation,
    drop_isolation,
    qualified_name,
    quote_identifier,
    quote_literal,
)

MAINTENANCE_LOG: Final = "maintenance_log"
_CRUD: Final = "select, insert, update, delete"
_SCRIPT: Final = 'a DBA can do it with psql -f "$(tenantry sql roles)"'
_VERSION: Final = "pg_catalog.current_setting('server_version_num')::integer"


def create_roles(
    config: TenancyConfig,
    *,
    logins: Sequence[str],
    maintenance_logins: Sequence[str],
    schemas: Sequence[str],
    version_table: str,
) -> Iterator[DDL]:
    """Yield the statements that create the group roles and their rights in this database.

    Args:
        config: names the roles.
        logins: of the application, to become members of its role.
        maintenance_logins: to become members of the maintenance role.
        schemas: where tenant tables are, beside the current one.
        version_table: Alembic's own, as a quoted name.
    """
    for login in logins:
        yield _refuse_login(login)
    yield _create_groups(config)
    yield _create_maintenance_group(config)
    yield _join_owner(config)
    yield _admit_authenticator(config)
    for login in logins:
        yield _admit_login(login, config.app_role)
    for login in maintenance_logins:
        yield _admit_login(login, config.maintenance_role)
    yield _grant_schemas(config, schemas)
    yield _revoke_temporary()
    owner = quote_identifier(config.owner_role)
    yield _statement(
        f"alter default privileges for role {owner} revoke execute on functions from public"
    )
    yield _statement(f"alter table {version_table} owner to {owner}")


def release_roles(
    config: TenancyConfig, *, schemas: Sequence[str], version_table: str
) -> Iterator[DDL]:
    """Yield the statements that take the group roles' rights in this database away."""
    owner = quote_identifier(config.owner_role)
    yield _statement(f"alter table {version_table} owner to session_user")
    yield _statement(
        f"alter default privileges for role {owner} grant execute on functions to public"
    )
    yield _block(f"""
        declare
          role text;
          schema text;
        begin
          for role, schema in
            select r.rolname, s.name
            from pg_catalog.pg_roles as r
            cross join pg_catalog.unnest({_with_current(schemas)}) as s (name)
            where r.rolname = any ({_array(_roles(config))})
          loop
            execute pg_catalog.format('revoke all on schema %I from %I', schema, role);
          end loop;
        end
    """)


def define_settings(config: TenancyConfig) -> DDL:
    """Return the statement that defines both settings for this database."""
    return _alter_database(
        config,
        "alter database %I set %s = ''",
        "the settings are not defined for this database, which % may not do: the session layer "
        f"defines them on each new connection, and {_SCRIPT}",
    )


def undefine_settings(config: TenancyConfig) -> DDL:
    """Return the statement that removes the definition of both settings."""
    return _alter_database(
        config,
        "alter database %I reset %s",
        f"the settings stay defined for this database, which % may not change: {_SCRIPT}",
    )


def assume_role(role: str | None) -> DDL:
    """Return the statement that runs the rest of the transaction as a role."""
    return _statement(f"set local role {'none' if role is None else quote_identifier(role)}")


def isolate_table(isolation: TableIsolation, column: str, config: TenancyConfig) -> Iterator[DDL]:
    """Yield the statements that wall a table off and grant the CRUD commands on it alone."""
    table = qualified_name(isolation.table, isolation.schema)
    yield _statement(f"alter table {table} owner to {quote_identifier(config.owner_role)}")
    yield from map(_statement, create_isolation(isolation))
    app = quote_identifier(config.app_role)
    yield _statement(f"revoke all on table {table} from public, {app}")
    yield _statement(f"grant {_CRUD} on table {table} to {app}")
    for reader in _readers(isolation):
        yield _statement(f"grant select on table {table} to {reader}")
    yield _for_maintenance(config, f"grant {_CRUD} on table {table} to")
    # Where all tenants are among the most common values, a plan that is made for a new one counts
    # on no rows, takes any index, and is kept for the others: docs/performance.md.
    yield _keep_statistics(table, column, 1)


def expose_table(isolation: TableIsolation, column: str, config: TenancyConfig) -> Iterator[DDL]:
    """Yield the statements that undo `isolate_table`, grants first."""
    table = qualified_name(isolation.table, isolation.schema)
    for role in (quote_identifier(config.app_role), *_readers(isolation)):
        yield _statement(f"revoke all on table {table} from {role}")
    yield _for_maintenance(config, f"revoke all on table {table} from")
    yield from map(_statement, drop_isolation(isolation))
    yield _keep_statistics(table, column, -1)


def create_maintenance_log(config: TenancyConfig) -> Iterator[DDL]:
    """Yield the statements that create the log of work across tenants."""
    yield _statement(f"""
        create table {MAINTENANCE_LOG} (
          id uuid not null default gen_random_uuid(),
          logged_at timestamptz not null default statement_timestamp(),
          login text not null default session_user,
          actor text not null,
          reason text not null,
          constraint pk_maintenance_log primary key (id),
          constraint ck_maintenance_log_actor check (btrim(actor) <> ''),
          constraint ck_maintenance_log_reason check (btrim(reason) <> '')
        )
    """)
    yield _statement(f"revoke all on table {MAINTENANCE_LOG} from public")
    yield _for_maintenance(config, f"grant insert (actor, reason) on table {MAINTENANCE_LOG} to")


def drop_maintenance_log() -> DDL:
    """Return the statement that drops the log of work across tenants."""
    return _statement(f"drop table {MAINTENANCE_LOG}")


def _create_groups(config: TenancyConfig) -> DDL:
    # Another database of the server may be migrated at this moment: its role will do.
    return _block(f"""
        declare
          role text;
        begin
          foreach role in array {_array(_roles(config)[:3])} loop
            if not exists (select from pg_catalog.pg_roles where rolname = role) then
              begin
                execute pg_catalog.format('create role %I nologin', role);
              exception when duplicate_object or unique_violation then
                null;
              end;
            end if;
          end loop;
        end
    """)


def _create_maintenance_group(config: TenancyConfig) -> DDL:
    role = quote_literal(config.maintenance_role)
    return _block(f"""
        begin
          if not exists (select from pg_catalog.pg_roles where rolname = {role}) then
            create role {quote_identifier(config.maintenance_role)} nologin bypassrls;
          end if;
        exception
          when duplicate_object or unique_violation then
            null;
          when insufficient_privilege then
            raise warning 'role % needs BYPASSRLS, which % may not grant: {_SCRIPT}',
              {role}, current_user;
        end
    """)


def _join_owner(config: TenancyConfig) -> DDL:
    # From PostgreSQL 16 on, whoever creates a role administers it but cannot become it as yet.
    owner = quote_literal(config.owner_role)
    return _block(f"""
        declare
          as_owner constant text := case when {_VERSION} < 160000 then 'member' else 'set' end;
        begin
          if not pg_catalog.pg_has_role(current_user, {owner}, as_owner) then
            execute pg_catalog.format('grant %I to %I', {owner}, current_user);
          end if;
        exception when unique_violation then
          null;
        end
    """)


def _admit_authenticator(config: TenancyConfig) -> DDL:
    # The owner hands over to it the functions that look before a tenant is known.
    owner, role = quote_literal(config.owner_role), quote_literal(config.authenticator_role)
    return _block(f"""
        begin
          if not pg_catalog.pg_has_role({owner}, {role}, 'member') then
            execute pg_catalog.format('grant %I to %I', {role}, {owner})
              || case when {_VERSION} < 160000 then '' else ' with inherit false, set true' end;
          end if;
        exception
          when unique_violation then
            null;
          when insufficient_privilege then
            raise warning '% may not make % a member of %: {_SCRIPT}',
              current_user, {owner}, {role};
        end
    """)


def _refuse_login(login: str) -> DDL:
    return _block(f"""
        begin
          if session_user = {quote_literal(login)} then
            raise insufficient_privilege using message = pg_catalog.format(
              '%s is the login of the application, which must not own what it uses', session_user);
          end if;
        end
    """)


def _admit_login(login: str, role: str) -> DDL:
    member, group = quote_literal(login), quote_literal(role)
    return _block(f"""
        begin
          if not pg_catalog.pg_has_role({member}, {group}, 'member') then
            grant {quote_identifier(role)} to {quote_identifier(login)};
          end if;
        exception
          when unique_violation then
            null;
          when undefined_object or insufficient_privilege then
            raise warning 'login % is no member of % yet: %. Mend that, then: grant % to %',
              {member}, {group}, sqlerrm,
              pg_catalog.quote_ident({group}), pg_catalog.quote_ident({member});
        end
    """)


def _grant_schemas(config: TenancyConfig, schemas: Sequence[str]) -> DDL:
    owner, app, authenticator, maintenance = map(quote_literal, _roles(config))
    return _block(f"""
        declare
          schema text;
        begin
          foreach schema in array {_with_current(schemas)} loop
            if pg_catalog.has_schema_privilege('public', schema, 'create') then
              execute pg_catalog.format('revoke create on schema %I from public', schema);
            end if;
            if not pg_catalog.has_schema_privilege({owner}, schema, 'create') then
              execute pg_catalog.format('grant usage, create on schema %I to %I', schema, {owner});
            end if;
            execute pg_catalog.format('grant usage on schema %I to %I, %I', schema,
              {app}, {authenticator});
            if exists (select from pg_catalog.pg_roles where rolname = {maintenance}) then
              execute pg_catalog.format('grant usage on schema %I to %I', schema, {maintenance});
            end if;
          end loop;
        end
    """)


def _revoke_temporary() -> DDL:
    return _block(f"""
        declare
          database constant text := pg_catalog.current_database();
        begin
          if pg_catalog.has_database_privilege('public', database, 'temporary') then
            execute pg_catalog.format('revoke temporary on database %I from public', database);
          end if;
        exception when insufficient_privilege then
          raise warning
            'PUBLIC keeps TEMPORARY on this database, which % may not revoke: {_SCRIPT}',
            current_user;
        end
    """)


def _alter_database(config: TenancyConfig, statement: str, warning: str) -> DDL:
    """Return a block that runs the statement (%I: the database, %s: a setting) for both."""
    settings = (config.organization_setting, config.user_setting)
    return _block(f"""
        declare
          setting text;
        begin
          foreach setting in array {_array([_quoted_setting(name) for name in settings])} loop
            execute pg_catalog.format({quote_literal(statement)},
              pg_catalog.current_database(), setting);
          end loop;
        exception when insufficient_privilege then
          raise warning {quote_literal(warning)},
            current_user;
        end
    """)


def _for_maintenance(config: TenancyConfig, statement: str) -> DDL:
    """Return a block that ends the statement with the maintenance role, where that exists."""
    return _block(f"""
        begin
          if exists (select from pg_catalog.pg_roles
                     where rolname = {quote_literal(config.maintenance_role)}) then
            {statement} {quote_identifier(config.maintenance_role)};
          end if;
        end
    """)


def _keep_statistics(table: str, column: str, target: int) -> DDL:
    # Citus refuses this of a table that is distributed already.
    return _block(f"""
        begin
          alter table {table} alter column {quote_identifier(column)} set statistics {target};
        exception when feature_not_supported then
          raise warning 'the statistics of % stay as they are: %', {quote_literal(table)}, sqlerrm;
        end
    """)


def _block(body: str) -> DDL:
    """Return an anonymous block, between dollar signs that no name inside it can close."""
    tag = "$tenantry$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return _statement(f"do {tag}\n{dedent(body).strip()}\n{tag}")


def _statement(sql: str) -> DDL:
    """Return the statement as it stands: DDL() looks for percent signs, but not for parameters."""
    return DDL(dedent(sql).strip().replace("%", "%%"))  # type: ignore[no-untyped-call]


def _readers(isolation: TableIsolation) -> list[str]:
    return [
        quote_identifier(role)
        for policy in isolation.policies
        if policy.command == "select"
        for role in policy.roles
    ]


def _roles(config: TenancyConfig) -> tuple[str, str, str, str]:
    return (
        config.owner_role,
        config.app_role,
        config.authenticator_role,
        config.maintenance_role,
    )


def _array(values: Sequence[str]) -> str:
    return f"array[{', '.join(map(quote_literal, values))}]"


def _with_current(schemas: Sequence[str]) -> str:
    return f"array[{', '.join(['current_schema()', *map(quote_literal, schemas)])}]"


def _quoted_setting(setting: str) -> str:
    return ".".join(quote_identifier(part) for part in setting.split("."))

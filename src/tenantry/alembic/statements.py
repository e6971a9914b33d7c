"""The SQL of the operations.

Blocks that may meet a missing privilege catch it and tell it as a warning, so that a migration
does what its role may do and names the script for the rest.
"""

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import TextClause, text

from tenantry.config import TenancyConfig
from tenantry.rls import (
    TableIsolation,
    create_isolation,
    drop_isolation,
    qualified_name,
    quote_identifier,
)

MAINTENANCE_LOG: Final = "maintenance_log"
_SCRIPT: Final = "a DBA can do it with psql -f sql/roles.sql"


def create_roles(
    config: TenancyConfig,
    logins: Iterable[str],
    *,
    version_table: str,
    version_schema: str | None,
) -> Iterator[TextClause]:
    """Yield the statements that create the group roles and their rights in this database."""
    for role in (config.owner_role, config.app_role, config.authenticator_role):
        yield _block(
            f"""
            if not exists (select from pg_catalog.pg_roles where rolname = {_literal(role)}) then
              create role {quote_identifier(role)} nologin;
            end if;
    """,
            """
            when duplicate_object or unique_violation then null;
        """,
        )
    maintenance = config.maintenance_role
    yield _block(
        f"""
        if not exists (select from pg_catalog.pg_roles where rolname = {_literal(maintenance)}) then
          create role {quote_identifier(maintenance)} nologin bypassrls;
        end if;
    """,
        f"""
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise warning 'role % needs BYPASSRLS, which % may not grant: {_SCRIPT}',
            {_literal(maintenance)}, current_user;
    """,
    )
    for role in (config.owner_role, config.authenticator_role):
        yield _grant_membership(role)
    for login in logins:
        yield _admit_login(config.app_role, login)
    owner, app, authenticator = (
        quote_identifier(role)
        for role in (config.owner_role, config.app_role, config.authenticator_role)
    )
    yield _block(f"""
        execute pg_catalog.format('revoke create on schema %I from public', current_schema());
        execute pg_catalog.format('grant usage, create on schema %I to {_in_format(owner)}',
          current_schema());
        execute pg_catalog.format('grant usage on schema %I to {_in_format(app)}, '
          '{_in_format(authenticator)}', current_schema());
        if exists (select from pg_catalog.pg_roles where rolname = {_literal(maintenance)}) then
          execute pg_catalog.format('grant usage on schema %I to %I', current_schema(),
            {_literal(maintenance)});
        end if;
    """)
    yield _block(
        """
        execute pg_catalog.format('revoke temporary on database %I from public',
          pg_catalog.current_database());
    """,
        f"""
        when insufficient_privilege then
          raise warning 'PUBLIC keeps TEMPORARY on this database, which % may not revoke: '
            '{_SCRIPT}', current_user;
    """,
    )
    version = qualified_name(version_table, version_schema)
    yield text(f"alter default privileges for role {owner} revoke execute on functions from public")
    yield text(f"alter table {_escape(version)} owner to {owner}")


def release_roles(
    config: TenancyConfig, *, version_table: str, version_schema: str | None
) -> Iterator[TextClause]:
    """Yield the statements that take the group roles' rights in this database away."""
    version = qualified_name(version_table, version_schema)
    yield text(f"alter table {_escape(version)} owner to session_user")
    owner = quote_identifier(config.owner_role)
    yield text(f"alter default privileges for role {owner} grant execute on functions to public")
    yield _block(f"""
        for role in
          select rolname from pg_catalog.pg_roles where rolname in ({_literals(config)})
        loop
          execute pg_catalog.format('revoke all on schema %I from %I', current_schema(), role);
        end loop;
    """)


def define_settings(config: TenancyConfig) -> TextClause:
    """Return the statement that defines both settings for this database."""
    return _block(
        f"""
        for setting in
          select unnest(array[{_literal(_quoted_setting(config.organization_setting))},
            {_literal(_quoted_setting(config.user_setting))}])
        loop
          execute pg_catalog.format('alter database %I set %s = ''''',
            pg_catalog.current_database(), setting);
        end loop;
    """,
        f"""
        when insufficient_privilege then
          raise warning 'the settings are not defined for this database, which % may not do; '
            'the session layer defines them on each new connection, and {_SCRIPT}', current_user;
    """,
    )


def undefine_settings(config: TenancyConfig) -> TextClause:
    """Return the statement that removes the definition of both settings."""
    return _block(
        f"""
        for setting in
          select unnest(array[{_literal(_quoted_setting(config.organization_setting))},
            {_literal(_quoted_setting(config.user_setting))}])
        loop
          execute pg_catalog.format('alter database %I reset %s',
            pg_catalog.current_database(), setting);
        end loop;
    """,
        f"""
        when insufficient_privilege then
          raise warning 'the settings stay defined for this database, which % may not change; '
            '{_SCRIPT}', current_user;
    """,
    )


def assume_role(role: str | None) -> TextClause:
    """Return the statement that runs the rest of the transaction as a role."""
    return text(f"set local role {'none' if role is None else _escape(quote_identifier(role))}")


def isolate_table(isolation: TableIsolation, config: TenancyConfig) -> Iterator[TextClause]:
    """Yield the statements that wall a table off and grant the CRUD commands on it."""
    for statement in create_isolation(isolation):
        yield text(_escape(statement))
    table = qualified_name(isolation.table, isolation.schema)
    yield text(_escape(f"revoke all on table {table} from public"))
    app = quote_identifier(config.app_role)
    yield text(_escape(f"grant select, insert, update, delete on table {table} to {app}"))
    for policy in isolation.policies:
        if policy.command == "select":
            readers = ", ".join(quote_identifier(role) for role in policy.roles)
            yield text(_escape(f"grant select on table {table} to {readers}"))
    yield _to_maintenance(config, f"grant select, insert, update, delete on table {table} to %I")


def expose_table(isolation: TableIsolation, config: TenancyConfig) -> Iterator[TextClause]:
    """Yield the statements that undo `isolate_table`, grants first."""
    table = qualified_name(isolation.table, isolation.schema)
    yield text(_escape(f"revoke all on table {table} from {quote_identifier(config.app_role)}"))
    for policy in isolation.policies:
        if policy.command == "select":
            readers = ", ".join(quote_identifier(role) for role in policy.roles)
            yield text(_escape(f"revoke all on table {table} from {readers}"))
    yield _to_maintenance(config, f"revoke all on table {table} from %I")
    for statement in drop_isolation(isolation):
        yield text(_escape(statement))


def create_maintenance_log(config: TenancyConfig) -> Iterator[TextClause]:
    """Yield the statements that create the log of work across tenants."""
    yield text("""
        create table maintenance_log (
          id uuid not null default gen_random_uuid(),
          logged_at timestamptz not null default statement_timestamp(),
          login text not null default session_user,
          actor text not null,
          reason text not null,
          constraint pk_maintenance_log primary key (id),
          constraint ck_maintenance_log_actor check (btrim(actor) <> ''),
          constraint ck_maintenance_log_reason check (btrim(reason) <> '')
        )""")
    yield text("revoke all on table maintenance_log from public")
    yield _to_maintenance(config, "grant insert (actor, reason) on table maintenance_log to %I")


def _grant_membership(role: str) -> TextClause:
    return _block(
        f"""
        if not (select rolsuper from pg_catalog.pg_roles where rolname = current_user) then
          execute pg_catalog.format('grant %I to %I', {_literal(role)}, current_user);
        end if;
    """,
        f"""
        when insufficient_privilege then
          if not pg_catalog.pg_has_role(current_user, {_literal(role)}, 'member') then
            raise warning '% is no member of %: {_SCRIPT}', current_user, {_literal(role)};
          end if;
    """,
    )


def _admit_login(app_role: str, login: str) -> TextClause:
    return _block(
        f"""
        if not exists (select from pg_catalog.pg_roles where rolname = {_literal(login)}) then
          raise warning 'the application''s login % does not exist yet: create it, then '
            'grant % to it', {_literal(login)}, {_literal(app_role)};
        elsif {_literal(login)} <> current_user
          and not pg_catalog.pg_has_role({_literal(login)}, {_literal(app_role)}, 'member') then
          execute pg_catalog.format('grant %I to %I', {_literal(app_role)}, {_literal(login)});
        end if;
    """,
        f"""
        when insufficient_privilege then
          raise warning '% may not make the login % a member of %: {_SCRIPT}',
            current_user, {_literal(login)}, {_literal(app_role)};
    """,
    )


def _to_maintenance(config: TenancyConfig, statement: str) -> TextClause:
    role = _literal(config.maintenance_role)
    return _block(f"""
        if exists (select from pg_catalog.pg_roles where rolname = {role}) then
          execute pg_catalog.format({_literal(_format_safe(statement))}, {role});
        end if;
    """)


def _block(body: str, exceptions: str = "") -> TextClause:
    """Return an anonymous block with the handlers of its exceptions."""
    handlers = f"exception\n{_indented(exceptions)}\n" if exceptions else ""
    return text(
        _escape(
            "do $tenantry$\ndeclare\n  role text;\n  setting text;\nbegin\n"
            f"{_indented(body)}\n{handlers}end\n$tenantry$"
        )
    )


def _indented(lines: str) -> str:
    return textwrap.indent(textwrap.dedent(lines).strip(), "  ")


def _escape(statement: str) -> str:
    """Keep SQLAlchemy from taking a colon for a parameter."""
    return statement.replace("\\", "\\\\").replace(":", "\\:")


def _format_safe(statement: str) -> str:
    """Double each percent sign except the one placeholder, which is the last."""
    head, _, tail = statement.rpartition("%I")
    return head.replace("%", "%%") + "%I" + tail.replace("%", "%%")


def _in_format(quoted: str) -> str:
    """Return a quoted identifier for use inside the literal of a `format()` call."""
    return quoted.replace("'", "''").replace("%", "%%")


def _literal(value: str) -> str:
    if "\\" in value:
        return "E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + value.replace("'", "''") + "'"


def _literals(config: TenancyConfig) -> str:
    roles = (
        config.owner_role,
        config.app_role,
        config.authenticator_role,
        config.maintenance_role,
    )
    return ", ".join(_literal(role) for role in roles)


def _quoted_setting(setting: str) -> str:
    return ".".join(quote_identifier(part) for part in setting.split("."))

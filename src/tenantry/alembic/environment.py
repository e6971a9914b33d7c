"""What an `env.py` needs: connect, migrate, and say clearly why it could not."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any, Final

from alembic.runtime.environment import EnvironmentContext
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from tenantry.alembic.operations import MigrationLogins
from tenantry.alembic.statements import MAINTENANCE_LOG
from tenantry.config import DEFAULT_CONFIG, Settings, TenancyConfig, by_psycopg2
from tenantry.embedded.bootstrap import ROLES
from tenantry.environment import migration_url
from tenantry.exceptions import DatabaseUnreachableError, TenancyError, WrongRoleError

logger = logging.getLogger("tenantry.alembic")

# Of this database: an advisory lock is known by the database too.
_LOCK: Final = "pg_catalog.hashtext('tenantry.alembic')"

# The current schema has no name in a comparison.
_PARTITIONS: Final = text("""
select nullif(n.nspname, current_schema()) as schema_name, c.relname as table_name
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where c.relispartition
""")


def run_migrations(
    context: EnvironmentContext | ModuleType,
    metadata: MetaData,
    *,
    tenancy: TenancyConfig = DEFAULT_CONFIG,
    **options: Any,
) -> None:
    """Run the migrations, each revision in a transaction of its own, online or as SQL.

    The URL is MIGRATION_DATABASE_URL, else the embedded server's. A program may pass one in
    `config.attributes["url"]`, and then those of the logins to admit in `"application_url"` and
    `"maintenance_url"`. A second run on the same database waits for the first. Warnings of the
    server are logged.

    Args:
        context: the `alembic.context` of an `env.py`.
        metadata: of the models. Schemas that its tables name are compared too.
        tenancy: what the database calls its tenants.
        options: further ones of Alembic's `context.configure`, which win over those chosen here.

    Raises:
        CommandError: nothing could be migrated, or a revision failed and was rolled back; its
            cause is an error of the library, such as ConfigurationError, DatabaseUnreachableError
            or WrongRoleError.
    """
    with _clear_errors():
        url, logins = _destination(context.config.attributes, offline=context.is_offline_mode())
        chosen: dict[str, Any] = {
            "target_metadata": metadata,
            "tenancy": tenancy,
            "logins": logins,
            "transaction_per_migration": True,
            "include_schemas": any(table.schema for table in metadata.tables.values()),
            "include_name": _Names(metadata),
            "compare_type": True,
            "compare_server_default": True,
        } | options
        if url is None:
            # With a parameter style that uses no percent signs, none is doubled in the script.
            context.configure(
                dialect_name="postgresql",
                dialect_opts={"paramstyle": "named"},
                literal_binds=True,
                **chosen,
            )
            with context.begin_transaction():
                context.run_migrations()
        else:
            _migrate(context, url, chosen)


def _destination(
    attributes: Mapping[str, Any], *, offline: bool
) -> tuple[URL | None, MigrationLogins]:
    """Return where to migrate, None for a script, and whom the roles revision admits.

    A program that passes a URL is asked for the others too; otherwise the environment is.
    """
    if "url" in attributes:
        app, maintenance = attributes.get("application_url"), attributes.get("maintenance_url")
        logins = MigrationLogins(_username(app), _username(maintenance))
        return None if offline else by_psycopg2(attributes["url"]), logins
    settings = Settings.from_environment()
    logins = MigrationLogins(
        _username(settings.database_url) or (ROLES["app"],),
        _username(settings.maintenance_database_url),
    )
    return None if offline else migration_url(settings), logins


def _username(url: URL | None) -> tuple[str, ...]:
    return (url.username,) if url is not None and url.username else ()


def _migrate(context: EnvironmentContext | ModuleType, url: URL, options: dict[str, Any]) -> None:
    engine = create_engine(url, poolclass=NullPool)
    try:
        with _alone(engine), _connected(engine) as connection:
            if isinstance(options["include_name"], _Names):
                options["include_name"].connection = connection
            context.configure(connection=connection, **options)
            with context.begin_transaction():
                context.run_migrations()
    except DBAPIError as error:
        reason = _first_line(error.orig)
        if error.connection_invalidated:
            raise DatabaseUnreachableError(
                f"the connection to {url.render_as_string()} was lost: {reason}. The revision that "
                "ran was rolled back; run the command again"
            ) from error
        code = getattr(error.orig, "pgcode", None)
        # undefined_object, and invalid_parameter_value, which SET ROLE has for it.
        if code in {"42704", "22023"} and any(f'"{role}"' in reason for role in _roles(options)):
            raise WrongRoleError(
                f"{reason}: a revision before this one has to make the roles, with "
                'op.create_tenancy_roles(), or a DBA with psql -f "$(tenantry sql roles)"'
            ) from error
        if code != "42501":
            raise
        raise WrongRoleError(
            f"role {url.username!r} may not migrate this database: {reason}. "
            "MIGRATION_DATABASE_URL must be the database's owner with CREATEROLE, or a login that "
            'a DBA prepared with psql -f "$(tenantry sql roles)"; and a revision before those that '
            "make tables has to call op.create_tenancy_roles()"
        ) from error


def _roles(options: Mapping[str, Any]) -> tuple[str, ...]:
    config: TenancyConfig = options["tenancy"]
    return (
        config.owner_role,
        config.app_role,
        config.authenticator_role,
        config.maintenance_role,
    )


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Wait until no other migration runs on this database, and keep others waiting meanwhile.

    The lock belongs to an open transaction on a connection of its own, not to a session: a
    transaction pooler would leave a session's lock behind on the server.
    """
    with _connected(engine) as connection:
        connection.execute(text("set local idle_in_transaction_session_timeout = 0"))
        if not connection.scalar(text(f"select pg_catalog.pg_try_advisory_xact_lock({_LOCK})")):
            logger.info("another migration of this database is running: waiting for it to end")
            connection.execute(text(f"select pg_catalog.pg_advisory_xact_lock({_LOCK})"))
        yield


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise DatabaseUnreachableError(
            f"no connection to {engine.url.render_as_string()}: {_first_line(error.orig)}. Check "
            "that the server runs there, and host, port, database, user and password of "
            "MIGRATION_DATABASE_URL"
        ) from error
    driver_connection: Any = connection.connection.driver_connection
    driver_connection.notices = _WarningLog()
    with connection:
        yield connection


class _WarningLog:
    """Takes the place of the driver's list of notices, which SQLAlchemy empties without a word."""

    def append(self, notice: str) -> None:
        """Log the notice, unless it is a mere one."""
        severity, _, message = notice.partition(":")
        if severity not in {"DEBUG", "LOG", "INFO", "NOTICE"}:
            logger.warning("%s", " ".join(message.split()))


class _Names:
    """Leaves out of the comparison what is not the models' own: the library's table, schemas.

    Partitions too, which belong to the tables that the models name.
    """

    def __init__(self, metadata: MetaData) -> None:
        self._schemas = {None, *(table.schema for table in metadata.tables.values())}
        self._declared = {(table.schema, table.name) for table in metadata.tables.values()}
        self._partitions: frozenset[tuple[str | None, str]] | None = None
        self.connection: Connection | None = None

    def __call__(self, name: str | None, kind: str, parents: Mapping[str, Any]) -> bool:
        if kind == "schema":
            return name in self._schemas
        if kind != "table" or name is None:
            return True
        key = (parents.get("schema_name"), name)
        return name != MAINTENANCE_LOG and (key in self._declared or not self._is_partition(key))

    def _is_partition(self, key: tuple[str | None, str]) -> bool:
        if self._partitions is None:
            # Not before the comparison: a query would open the transaction of the migrations.
            rows = () if self.connection is None else self.connection.execute(_PARTITIONS)
            self._partitions = frozenset((row.schema_name, row.table_name) for row in rows)
        return key in self._partitions


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Let Alembic's command line print our errors as one line instead of a traceback."""
    try:
        yield
    except TenancyError as error:
        raise CommandError(str(error)) from error


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]

"""What an `env.py` needs: connect, migrate, and say clearly why it could not."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.runtime.environment import EnvironmentContext
from alembic.util import CommandError
from sqlalchemy import URL, MetaData, create_engine
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import NullPool

from tenantry.alembic.comparison import compare_server_default
from tenantry.alembic.statements import MAINTENANCE_LOG
from tenantry.config import DEFAULT_CONFIG, Settings, TenancyConfig
from tenantry.environment import migration_url
from tenantry.exceptions import DatabaseUnreachableError, TenancyError, WrongRoleError

logger = logging.getLogger("tenantry.alembic")


def run_migrations(
    context: EnvironmentContext,
    metadata: MetaData,
    *,
    tenancy: TenancyConfig = DEFAULT_CONFIG,
) -> None:
    """Run the migrations, each revision in a transaction of its own, online or as SQL.

    The URL is `config.attributes["url"]` where a program passes one, else
    MIGRATION_DATABASE_URL, else the embedded server's. Warnings of the server are logged.

    Args:
        context: the `alembic.context` of an `env.py`.
        metadata: of the models.
        tenancy: what the database calls its tenants.

    Raises:
        CommandError: nothing could be migrated, or a revision failed and was rolled back; its
            cause is an error of the library, DatabaseUnreachableError or WrongRoleError.
    """
    options: dict[str, Any] = {
        "target_metadata": metadata,
        "tenancy": tenancy,
        "transaction_per_migration": True,
        "include_name": _is_the_models_own,
        "compare_type": True,
        "compare_server_default": compare_server_default,
    }
    with _clear_errors():
        if context.is_offline_mode():
            # With a parameter style that uses no percent signs, none is doubled in the script.
            context.configure(
                dialect_name="postgresql",
                dialect_opts={"paramstyle": "named"},
                literal_binds=True,
                **options,
            )
            with context.begin_transaction():
                context.run_migrations()
        else:
            url = context.config.attributes.get("url")
            if url is None:
                url = migration_url(Settings.from_environment())
            _migrate(context, url, options)


def _migrate(context: EnvironmentContext, url: URL, options: dict[str, Any]) -> None:
    engine = create_engine(url, poolclass=NullPool)
    try:
        connection = engine.connect()
    except OperationalError as error:
        raise DatabaseUnreachableError(
            f"no connection to {url.render_as_string(hide_password=True)}: "
            f"{_first_line(error.orig)}. Check that the server runs there, and host, port, "
            "database, user and password of MIGRATION_DATABASE_URL"
        ) from error
    driver_connection: Any = connection.connection.driver_connection
    try:
        with connection:
            context.configure(connection=connection, **options)
            with context.begin_transaction():
                context.run_migrations()
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) != "42501":
            raise
        raise WrongRoleError(
            f"role {url.username!r} may not migrate this database: {_first_line(error.orig)}. "
            "MIGRATION_DATABASE_URL must be the database's owner with CREATEROLE, or a login that "
            "a DBA prepared with psql -f sql/roles.sql"
        ) from error
    finally:
        for notice in driver_connection.notices:
            if notice.startswith("WARNING"):
                logger.warning("%s", notice.partition(":")[2].strip())


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Let Alembic's command line print our errors as one line instead of a traceback."""
    try:
        yield
    except TenancyError as error:
        raise CommandError(str(error)) from error


def _is_the_models_own(name: str | None, kind: str, _parents: object) -> bool:
    """Leave the library's own table out of the comparison with the models."""
    return not (kind == "table" and name == MAINTENANCE_LOG)


def _first_line(error: BaseException | None) -> str:
    return str(error).strip().partition("\n")[0]

"""What lies behind an error of the driver, where the library can tell and say what to do."""

from typing import Any

from sqlalchemy import Engine, MetaData
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tenantry.config import TenancyConfig
from tenantry.exceptions import (
    DatabaseUnreachableError,
    MissingMigrationsError,
    TenancyError,
    UnknownTenantError,
)


def diagnose(
    context: ExceptionContext, metadata: MetaData | None, config: TenancyConfig
) -> BaseException | None:
    """Return the error of the library's own to be raised instead, or None to leave it as it is.

    Args:
        context: of SQLAlchemy's `handle_error`.
        metadata: of the models; without it missing tables and organizations are not recognised.
        config: what the database calls its tenants.
    """
    error = context.original_exception
    if isinstance(error, TenancyError):
        return error
    if context.is_pre_ping:
        # The pool replaces the connection, if it is left to see the driver's own error.
        return None
    if context.connection is None and isinstance(
        error, context.dialect.loaded_dbapi.OperationalError
    ):
        return DatabaseUnreachableError(
            f"no connection to {_shown(context.engine)}: {_first_line(error)}. Check that the "
            "server runs there, and host, port, database, user and password of the URL"
        )
    if metadata is None:
        return None
    if isinstance(context.sqlalchemy_exception, IntegrityError):
        return _unknown_tenant(error, metadata, config)
    if isinstance(context.sqlalchemy_exception, ProgrammingError):
        return _missing_table(error, metadata)
    return None


def sqlstate(error: BaseException | None) -> str | None:
    """Return the server's code of an error, whichever driver's it is; None if it has none."""
    code: str | None = getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
    return code


def diagnostics(error: BaseException) -> Any:
    """Return what names the table and constraint of a server's error; None if nothing does."""
    # asyncpg's own error is what SQLAlchemy's was raised from, and has the same names.
    return getattr(error, "diag", error.__cause__)


def _unknown_tenant(
    error: BaseException, metadata: MetaData, config: TenancyConfig
) -> UnknownTenantError | None:
    """Recognise the foreign key from a tenant table to the root table."""
    details = diagnostics(error)
    if details is None or sqlstate(error) != "23503":
        return None
    for table in metadata.tables.values():
        for key in table.foreign_key_constraints:
            if (
                key.name == details.constraint_name
                and [column.name for column in key.columns] == [config.tenant_column]
                and key.referred_table.name == config.root_table
            ):
                return UnknownTenantError(
                    f"the bound organization does not exist in "
                    f"{config.root_table!r}, so no row of {details.table_name!r} can "
                    "be filed under it: create it first, or bind another one"
                )
    return None


def _missing_table(error: BaseException, metadata: MetaData) -> MissingMigrationsError | None:
    """Recognise a table or column that the models have and the database has not."""
    message = _first_line(error)
    code = sqlstate(error)
    for table in metadata.tables.values():
        if code == "42P01":
            missing = f'"{table.name}"' in message or f'"{table.fullname}"' in message
        else:
            missing = code == "42703" and any(
                f"{table.name}.{column.name} " in message
                or f'"{column.name}" of relation "{table.name}"' in message
                for column in table.columns
            )
        if missing:
            return MissingMigrationsError(
                f"{message}: the database is behind the models; run `alembic upgrade head`"
            )
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _shown(engine: Engine | None) -> str:
    if engine is None:
        return "the database"
    # The query may hold a password too.
    url = engine.url.difference_update_query(list(engine.url.query))
    return url.render_as_string(hide_password=True)

"""The transaction of an audit: read-only, the same whatever is stored for the role or database."""

from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import psycopg2
from psycopg2.extensions import BYTES, TRANSACTION_STATUS_IDLE, register_type
from psycopg2.extensions import connection as DriverConnection  # noqa: N812
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Connection

from tenantry.audit.catalogue import facts, transaction
from tenantry.audit.parameters import AuditConfig, no_type
from tenantry.exceptions import AuditError

OLDEST_VERSION: Final = 150000


@contextmanager
def prepared(driver: DriverConnection, config: AuditConfig) -> Iterator[Cursor]:
    """Yield a cursor in the audit's transaction, in which each check can be run as it is.

    Raises:
        AuditError: the catalogs that every check needs are closed to the role.
        ConfigurationError: the id type cannot be the name of a type.
    """
    with _in_utf8(driver), _transaction(driver) as cursor:
        _prepare(cursor, config)
        yield cursor


def driver_of(connection: Connection | DriverConnection) -> DriverConnection:
    """Return psycopg2's connection itself.

    Raises:
        AuditError: it is in a transaction, or the server is older than PostgreSQL 15.
    """
    if isinstance(connection, Connection):
        inner = None if connection.in_transaction() else connection.connection.driver_connection
    else:
        inner = connection
    if (
        not isinstance(inner, DriverConnection)
        or inner.info.transaction_status != TRANSACTION_STATUS_IDLE
    ):
        raise AuditError(
            "the audit needs a connection of psycopg2 that is outside a transaction, since it "
            "reads everything in one of its own: commit or roll back first, or open another one"
        )
    if inner.server_version < OLDEST_VERSION:
        raise AuditError(
            f"the server's version is {inner.server_version // 10000}, nothing was looked at: the "
            "audit needs PostgreSQL 15 or later"
        )
    return inner


def rows_of(cursor: Cursor) -> list[tuple[Any, ...]]:
    r"""Return the rows of what was executed; what is no UTF-8 is written out, as in `\xe9`."""
    return [tuple(_decoded(value) for value in row) for row in cursor]


def set_all(cursor: Cursor, settings: Mapping[str, str]) -> None:
    """Set these settings until the transaction ends."""
    # The driver goes on quoting backslashes as they had to be when the connection was made; what
    # base64 writes has none.
    names, values = (
        [b64encode(each.encode()).decode("ascii") for each in column]
        for column in zip(*settings.items(), strict=True)
    )
    cursor.execute(
        "select pg_catalog.set_config("
        "pg_catalog.convert_from(pg_catalog.decode(s.name, 'base64'), 'UTF8'),"
        " pg_catalog.convert_from(pg_catalog.decode(s.value, 'base64'), 'UTF8'), true)"
        " from rows from (pg_catalog.unnest(%s::text[]), pg_catalog.unnest(%s::text[]))"
        " as s (name, value)",
        [names, values],
    )


def _decoded(value: Any) -> Any:
    return value.decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else value


def first_line(error: psycopg2.Error) -> str:
    """Return what the server said, without where in the query it was."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def _in_utf8(driver: DriverConnection) -> Iterator[None]:
    # The encoding of the database, or one stored for the role, may have no characters for what is
    # looked for. The driver has to be told, or it goes on reading in the one it began with.
    encoding = driver.encoding
    # A database without an encoding may hold names that are no text in any: it sends those to a
    # client that asks for none.
    none = driver.info.parameter_status("server_encoding") == "SQL_ASCII"
    driver.set_client_encoding("SQL_ASCII" if none else "UTF8")
    try:
        yield
    finally:
        if not driver.closed:
            driver.set_client_encoding(encoding)


@contextmanager
def _transaction(driver: DriverConnection) -> Iterator[Cursor]:
    # In autocommit the driver begins nothing by itself, and its own settings stay untouched.
    autocommit = driver.autocommit
    driver.autocommit = True
    try:
        # Made directly, since a guarded connection's own cursors refuse text; this text reads the
        # catalogs alone.
        with Cursor(driver) as cursor:
            # A database without an encoding (SQL_ASCII) may hold names that are no UTF-8, on which
            # the driver would give up: rows_of() decodes them.
            register_type(BYTES, cursor)
            cursor.execute("begin isolation level repeatable read read only")
            try:
                yield cursor
            finally:
                if not driver.closed:
                    cursor.execute("rollback")
    finally:
        if not driver.closed:
            driver.autocommit = autocommit


def _prepare(cursor: Cursor, config: AuditConfig) -> None:
    cursor.execute(transaction())
    settings = config.settings()
    set_all(cursor, settings)
    id_type = settings["tenantry.id_type"]
    try:
        cursor.execute(
            "select pg_catalog.to_regtype(pg_catalog.current_setting('tenantry.id_type'))"
        )
    except (psycopg2.ProgrammingError, psycopg2.DataError) as error:
        raise no_type(id_type) from error
    try:
        for fact in facts().values():
            cursor.execute(fact)
    except psycopg2.errors.InsufficientPrivilege as error:
        raise AuditError(
            f"the role may not read what every check needs: {first_line(error)}. Run the audit as "
            "a role that may read the system catalogs"
        ) from error

"""Work across tenants: rare, by a role of its own, and logged before it begins."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.errors import InsufficientPrivilege, InvalidParameterValue
from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from tenantry.config import DEFAULT_CONFIG, Settings, TenancyConfig
from tenantry.environment import maintenance_url
from tenantry.exceptions import (
    ConfigurationError,
    DatabaseUnreachableError,
    MissingMigrationsError,
    WrongRoleError,
)
from tenantry.rls import quote_identifier


def create_maintenance_engine(
    url: URL, *, config: TenancyConfig = DEFAULT_CONFIG, **engine_options: Any
) -> Engine:
    """Create an engine whose transactions run as the maintenance role, which sees every tenant.

    BYPASSRLS is not inherited, so each transaction takes the role with SET LOCAL ROLE, which holds
    behind a transaction pooler too.

    Raises (when a transaction begins):
        WrongRoleError: the login is no member of the maintenance role.
    """
    engine = create_engine(url, **engine_options)

    @event.listens_for(engine, "begin")
    def assume_role(connection: Connection) -> None:
        try:
            connection.exec_driver_sql(
                f"set local role {quote_identifier(config.maintenance_role)}"
            )
        except DBAPIError as error:
            if not isinstance(error.orig, InsufficientPrivilege | InvalidParameterValue):
                raise
            raise WrongRoleError(
                f"login {url.username!r} cannot act as {config.maintenance_role!r}: "
                f"{str(error.orig).strip()}. Set MAINTENANCE_DATABASE_URL to a login that is a "
                'member of it; psql -f "$(tenantry sql roles)" makes both'
            ) from error

    return engine


@contextmanager
def maintenance_session(
    *, reason: str, actor: str, engine: Engine | None = None
) -> Iterator[Session]:
    """Open a Session that sees every tenant, after recording who wants it and why.

    The record is committed to the append-only `maintenance_log` first, in a transaction of its
    own, so that it stays when the work fails. The work is one transaction: committed at the end,
    rolled back on an exception.

    Args:
        reason: why; kept in the log.
        actor: the person or the job; kept in the log.
        engine: of `create_maintenance_engine`; by default on MAINTENANCE_DATABASE_URL.

    Raises:
        ConfigurationError: reason or actor is blank.
        DatabaseUnreachableError: no connection could be made.
        WrongRoleError: the login is no member of the maintenance role, or that role is bound by
            row-level security.
        MissingMigrationsError: the log's table does not exist.
    """
    if not reason.strip() or not actor.strip():
        raise ConfigurationError(
            "maintenance_session() needs a reason and an actor that are not blank: they are "
            "what the access log keeps"
        )
    if engine is None:
        engine = default_maintenance_engine()
    _record(engine, reason, actor)
    with Session(engine) as session, session.begin():
        yield session


@functools.cache
def default_maintenance_engine() -> Engine:
    """Return the process's engine for work across tenants, as the environment describes it."""
    return create_maintenance_engine(maintenance_url(Settings.from_environment()))


def _record(engine: Engine, reason: str, actor: str) -> None:
    try:
        with engine.begin() as connection:
            bypasses = connection.scalar(
                text("select rolbypassrls from pg_catalog.pg_roles where rolname = current_user")
            )
            if not bypasses:
                raise WrongRoleError(
                    "the maintenance role is bound by row-level security, so it would see no "
                    'rows: a DBA gives it BYPASSRLS with psql -f "$(tenantry sql roles)"'
                )
            connection.execute(
                text("insert into maintenance_log (actor, reason) values (:actor, :reason)"),
                {"actor": actor, "reason": reason},
            )
    except OperationalError as error:
        if error.connection_invalidated or getattr(error.orig, "pgcode", None) is not None:
            raise
        raise DatabaseUnreachableError(
            f"no connection to {engine.url.render_as_string(hide_password=True)}: "
            f"{str(error.orig).strip().partition(chr(10))[0]}"
        ) from error
    except DBAPIError as error:
        if getattr(error.orig, "pgcode", None) not in {"42P01", "42501"}:
            raise
        raise MissingMigrationsError(
            f"the access log cannot be written: {str(error.orig).strip()}. A revision makes it "
            "with op.create_maintenance_log(), after op.create_tenancy_roles(); then `alembic "
            'upgrade head`, and psql -f "$(tenantry sql roles)" where the maintenance role was '
            "made later"
        ) from error

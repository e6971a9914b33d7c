"""What an application gets once: its Sessions, a probe before it serves, answers to errors."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from fastapi import FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Connection, Engine
from sqlalchemy.orm import Session, sessionmaker

from tenantry.database import connection_state
from tenantry.exceptions import ConfigurationError
from tenantry.fastapi.problems import add_problem_handlers
from tenantry.probe import Isolation
from tenantry.sessions import SessionLocal

_ATTRIBUTE: Final = "tenantry_sessions"

Sessions = sessionmaker[Session]


@dataclass(frozen=True, slots=True)
class Probed:
    """What keeps tenants apart on the application's connections.

    Attributes:
        isolation: what the server says of the role, the tables and their policies.
        filtered: explicit filters are the only wall.
    """

    isolation: Isolation
    filtered: bool


def install_tenancy(app: FastAPI, *, sessions: Sessions = SessionLocal) -> None:
    """Let the application serve only after its database was probed, and answer errors as problems.

    Before the first request a connection is made, and thereby probed: in mode `database` the
    application does not start on a database that does not keep tenants apart, in the other modes
    one warning says why. At shutdown the engine's connections are closed.

    Args:
        app: the application; called once for each. Its own lifespan runs inside this one.
        sessions: makes the Sessions that `tenant_session` hands to routes.

    Raises:
        ConfigurationError: the application has the layer already, or `sessions` makes others.

    At start-up the application raises IsolationNotEnforcedError, MissingMigrationsError,
    DatabaseUnreachableError or ConfigurationError (an engine that is not protected).
    """
    if hasattr(app.state, _ATTRIBUTE):
        raise ConfigurationError(f"the tenant layer is installed on {app.title!r} already")
    made = getattr(sessions, "class_", Session)
    if not issubclass(made, Session):
        raise ConfigurationError(
            f"the Sessions for {app.title!r} are {made.__name__}s, and this integration is "
            "synchronous: give install_tenancy() a sessionmaker on an engine of "
            "create_tenant_engine(). A route that wants AsyncSession opens "
            "tenantry.asyncio.tenant_scope(…) itself"
        )
    setattr(app.state, _ATTRIBUTE, sessions)
    add_problem_handlers(app)
    own = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(served: FastAPI) -> AsyncIterator[Any]:
        engine = await run_in_threadpool(engine_of, sessions)
        try:
            await run_in_threadpool(probe_isolation, sessions)
            async with own(served) as state:
                yield state
        finally:
            await run_in_threadpool(engine.dispose)

    app.router.lifespan_context = lifespan


def sessions_of(app: FastAPI) -> Sessions:
    """Return what makes the application's Sessions.

    Raises:
        ConfigurationError: it has no tenant layer.
    """
    sessions: Sessions | None = getattr(app.state, _ATTRIBUTE, None)
    if sessions is None:
        raise ConfigurationError(
            f"FastAPI application {app.title!r} has no tenant layer: call install_tenancy(app, …)"
        )
    return sessions


def probe_isolation(sessions: Sessions) -> Probed:
    """Return what keeps tenants apart, as it was found when the connection was made.

    Raises:
        DatabaseUnreachableError: there is no connection.
        IsolationNotEnforcedError: the mode is `database`, and the database is no wall.
        MissingMigrationsError: it lacks tables that the models describe.
        ConfigurationError: the engine is not protected.
    """
    with engine_of(sessions).connect() as connection:
        state = connection_state(connection)
        return Probed(state.isolation, state.guarded)


def engine_of(sessions: Sessions) -> Engine:
    """Return the engine that the Sessions work on."""
    with sessions() as session:
        bind = session.get_bind()
    return bind.engine if isinstance(bind, Connection) else bind

"""Engines that write the tenant at the start of every transaction and clear it afterwards."""

import os
import weakref
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import URL, Engine, MetaData, create_engine
from sqlalchemy.pool import SingletonThreadPool, StaticPool
from sqlalchemy.pool.base import ResetStyle

from tenantry.admission import Admission
from tenantry.config import (
    DEFAULT_CONFIG,
    SYNCHRONOUS_DRIVERS,
    ContextWay,
    Mode,
    Scope,
    TenancyConfig,
    parse_url,
)
from tenantry.drivers import driver_of
from tenantry.exceptions import ConfigurationError
from tenantry.extras import extras
from tenantry.filters import FilteringCompiler
from tenantry.states import ConnectionState
from tenantry.tenancy import (
    SESSION_OPTION,
    TENANCY_OPTION,
    TENANT_OPTION,
    Tenancy,
    bound_tenant,
    connection_state,
)

__all__ = [
    "SESSION_OPTION",
    "TENANCY_OPTION",
    "TENANT_OPTION",
    "ConnectionState",
    "Tenancy",
    "bound_tenant",
    "connection_state",
    "create_tenant_engine",
    "protect_engine",
]

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

AnyEngine = TypeVar("AnyEngine", "Engine", "AsyncEngine")

_protected: weakref.WeakSet[Engine] = weakref.WeakSet()


def create_tenant_engine(
    url: str | URL,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    mode: Mode = "auto",
    scope: Scope = "auto",
    context: ContextWay = "auto",
    metadata: MetaData | None = None,
    **engine_options: Any,
) -> Engine:
    """Create an engine on which no transaction ever runs with a tenant that was not bound to it.

    Args:
        url: the application role's URL; the driver is psycopg2 or psycopg.
        config: what the database calls its tenants.
        mode: `auto` (row-level security, or explicit filters with one warning where it is
            missing), `database` (refuse to connect where it is missing), `filters`, `both`.
        scope: `session` (a setting of the session, cleared on return to the pool), `transaction`
            (a setting that ends with its transaction), `auto` (session, except behind a
            transaction pooler and on Citus).
        context: how a transaction's tenant is sent: `separate` (messages of its own), `prefix` (in
            front of the first query, in the same message), `begin` (together with BEGIN as well),
            `auto` (prefix, except on Citus and on what is not PostgreSQL).
        metadata: of the models; lets errors about missing tables and organizations name the cause.
        engine_options: for `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: the URL cannot be used, or its driver is not installed.

    On connecting, the engine raises DatabaseUnreachableError, MissingMigrationsError,
    IsolationNotEnforcedError (mode `database`) or ConfigurationError (scope `session` behind a
    pooler).
    """
    with extras():
        engine = create_engine(
            parse_url(_text_of(url), drivers=SYNCHRONOUS_DRIVERS), **engine_options
        )
    return protect_engine(
        engine,
        config=config,
        mode=mode,
        scope=scope,
        context=context,
        metadata=metadata,
    )


def protect_engine(
    engine: AnyEngine,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    mode: Mode = "auto",
    scope: Scope = "auto",
    context: ContextWay = "auto",
    metadata: MetaData | None = None,
) -> AnyEngine:
    """Give an existing engine the guarantee of `create_tenant_engine`, and return it.

    For applications whose engine is made elsewhere, an AsyncEngine too; call it before the engine's
    first connection.

    Raises:
        ConfigurationError: the engine is not PostgreSQL by psycopg2, psycopg or asyncpg, is already
            protected, has connections from before, or its driver cannot do what was asked for.
    """
    # An AsyncEngine's, whose class is not imported here: it needs greenlet.
    inner: Any = getattr(engine, "sync_engine", engine)
    _protect(
        inner,
        config=config,
        mode=mode,
        scope=scope,
        context=context,
        metadata=metadata,
    )
    return engine


def _protect(
    engine: Engine,
    *,
    config: TenancyConfig,
    mode: Mode,
    scope: Scope,
    context: ContextWay,
    metadata: MetaData | None,
) -> None:
    driver = driver_of(engine)
    if TENANCY_OPTION in engine.get_execution_options():
        raise ConfigurationError("this engine is already protected: create one engine a database")
    checked_in = getattr(engine.pool, "checkedin", None)
    if checked_in is not None and checked_in():
        raise ConfigurationError(
            "this engine has pooled connections that were opened unprotected: call "
            "protect_engine() right after create_engine()"
        )
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        raise ConfigurationError(
            f"{type(engine.pool).__name__} hands one connection to several users at once, who may "
            "be of different tenants: use QueuePool or NullPool"
        )
    if engine.pool._reset_on_return is ResetStyle.reset_commit:
        raise ConfigurationError(
            "pool_reset_on_return='commit' would commit what was left unfinished for a tenant: "
            "leave it at 'rollback'"
        )
    tenancy = Tenancy(
        Admission(config, driver, mode=mode, scope=scope, context=context, metadata=metadata)
    )
    engine.update_execution_options(**{TENANCY_OPTION: tenancy})
    engine.dialect.statement_compiler = type(
        "TenantCompiler",
        (FilteringCompiler, engine.dialect.statement_compiler),
        {"filtering": tenancy.filtering},
    )
    tenancy.protect(engine)
    _protected.add(engine)


def _text_of(url: str | URL) -> str:
    return url.render_as_string(hide_password=False) if isinstance(url, URL) else url


def _forget_connections() -> None:
    """In a forked child: leave the parent's connections to the parent."""
    for engine in _protected:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)

"""The session layer for asyncio: the same guarantee for AsyncSession and AsyncConnection."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import URL, MetaData
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    create_async_engine,
)

from tenantry import sessions as synchronous
from tenantry.config import DEFAULT_CONFIG, Mode, TenancyConfig, parse_url
from tenantry.context import Tenant
from tenantry.database import protect_engine
from tenantry.extras import extras

__all__ = [
    "clear_tenant",
    "create_async_tenant_engine",
    "get_tenant",
    "set_tenant",
    "tenant_scope",
]

AsyncTarget = AsyncSession | async_scoped_session[Any] | AsyncConnection


def create_async_tenant_engine(
    url: str | URL,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    mode: Mode = "auto",
    metadata: MetaData | None = None,
    **engine_options: Any,
) -> AsyncEngine:
    """Create an engine on which no transaction ever runs with a tenant that was not bound to it.

    The tenant goes with each BEGIN, in the same message, and ends with its transaction.

    Args:
        url: the application role's URL; the driver is asyncpg or psycopg, which a URL without a
            driver means.
        config: what the database calls its tenants.
        mode: `auto`, `database` or `both`, as for `create_tenant_engine`. Explicit filters do not
            stand in for a missing wall here.
        metadata: of the models; lets errors about missing tables and organizations name the cause.
        engine_options: for `sqlalchemy.ext.asyncio.create_async_engine`.

    Raises:
        ConfigurationError: the URL or the mode cannot be used, or the driver is not installed.

    On connecting, the engine raises DatabaseUnreachableError, MissingMigrationsError,
    IsolationNotEnforcedError (the wall is missing) or ConfigurationError (Citus).
    """
    text = url.render_as_string(hide_password=False) if isinstance(url, URL) else url
    with extras():
        engine = create_async_engine(
            parse_url(text, drivers=("psycopg", "asyncpg")), **engine_options
        )
    return protect_engine(
        engine,
        config=config,
        mode=mode,
        metadata=metadata,
    )


async def set_tenant(
    target: AsyncTarget, organization_id: object, user_id: object = None
) -> Tenant:
    """Bind a tenant: from now on each transaction of the target runs for it and sees nothing else.

    The ids are validated before anything is sent. An open transaction is told at once, each later
    one when it begins, on whatever connection it gets.

    Args:
        target: an AsyncSession (or async_scoped_session) or an AsyncConnection of a protected
            engine.
        organization_id: a uuid, as `uuid.UUID` or text.
        user_id: a uuid, or None.

    Returns:
        The tenant that is now bound.

    Raises:
        InvalidTenantError: an id is not of the configured type; the target is unchanged.
        TenantSwitchError: another tenant is bound and still in use, or a savepoint is open.
        ConfigurationError: the target's engine is not protected.
    """
    return await _plain(target).run_sync(
        lambda inner: synchronous.set_tenant(inner, organization_id, user_id)
    )


async def clear_tenant(target: AsyncTarget) -> None:
    """Unbind the tenant; the target sees no tenant's rows until another one is bound.

    Raises:
        TenantSwitchError: the tenant is still in use, as for `set_tenant`.
    """
    await _plain(target).run_sync(synchronous.clear_tenant)


def get_tenant(target: AsyncTarget) -> Tenant | None:
    """Return the tenant bound to an AsyncSession or AsyncConnection, or None."""
    plain = _plain(target)
    if isinstance(plain, AsyncSession):
        return synchronous.get_tenant(plain.sync_session)
    # An AsyncConnection has none inside before it is awaited.
    inner = plain.sync_connection
    return None if inner is None else synchronous.get_tenant(inner)


@asynccontextmanager
async def tenant_scope(
    organization_id: object,
    user_id: object = None,
    *,
    sessions: Callable[[], AsyncSession],
) -> AsyncIterator[AsyncSession]:
    """Open an AsyncSession for one tenant: committed at the end, rolled back on an exception.

    Args:
        organization_id: as for `set_tenant`.
        user_id: as for `set_tenant`.
        sessions: makes the AsyncSession, as an `async_sessionmaker` does; it is closed in the end.

    Raises:
        InvalidTenantError: an id is not of the configured type; nothing was sent.
    """
    async with sessions() as session:
        await set_tenant(session, organization_id, user_id)
        async with session.begin():
            yield session


def _plain(target: AsyncTarget) -> AsyncSession | AsyncConnection:
    return target() if isinstance(target, async_scoped_session) else target

"""The URLs and the engine that the process's environment describes."""

import functools
import logging

from sqlalchemy import URL, Engine, MetaData

from tenantry.config import Settings
from tenantry.database import create_tenant_engine
from tenantry.embedded import Login, default_server
from tenantry.exceptions import ConfigurationError

logger = logging.getLogger("tenantry")


@functools.cache
def default_engine(metadata: MetaData | None = None) -> Engine:
    """Return the process's engine for the application role, as the environment describes it.

    `DATABASE_URL`, `TENANTRY_MODE`, `TENANTRY_SCOPE` and `TENANTRY_CONTEXT`; without a URL the
    embedded server, which is started if need be, said in one log line. One engine for each
    metadata.

    Args:
        metadata: of the models, as for `create_tenant_engine`.

    Raises:
        ConfigurationError: the environment cannot be used.
        EmbeddedServerError: the embedded server could not be started.
    """
    settings = Settings.from_environment()
    return create_tenant_engine(
        application_url(settings),
        mode=settings.mode,
        scope=settings.scope,
        context=settings.context,
        metadata=metadata,
    )


def application_url(settings: Settings) -> URL:
    """Return the application role's URL: the configured one, or the embedded server's."""
    if settings.database_url is not None:
        return settings.database_url
    return _embedded_url("DATABASE_URL", "app")


def migration_url(settings: Settings) -> URL:
    """Return the URL that migrations run with: the configured one, or the embedded server's.

    Raises:
        ConfigurationError: only DATABASE_URL is set. Migrating as the application's role would
            make it the owner of the tables, whom row-level security does not bind.
    """
    if settings.migration_database_url is not None:
        return settings.migration_database_url
    if settings.database_url is not None:
        raise ConfigurationError(
            "MIGRATION_DATABASE_URL is not set, and DATABASE_URL is: migrations run as the owner, "
            "the application never does; set both"
        )
    return _embedded_url("MIGRATION_DATABASE_URL", "owner")


def maintenance_url(settings: Settings) -> URL:
    """Return the URL for work across tenants: the configured one, or the embedded server's.

    Raises:
        ConfigurationError: only DATABASE_URL is set.
    """
    if settings.maintenance_database_url is not None:
        return settings.maintenance_database_url
    if settings.database_url is not None:
        raise ConfigurationError(
            "MAINTENANCE_DATABASE_URL is not set: work across tenants needs a login that is a "
            'member of tenantry_maintenance; psql -f "$(tenantry sql roles)" makes one'
        )
    return _embedded_url("MAINTENANCE_DATABASE_URL", "maintenance")


def _embedded_url(variable: str, login: Login) -> URL:
    server = default_server()
    server.start()
    logger.info("%s is not set: using the embedded server", variable)
    return server.url(login)

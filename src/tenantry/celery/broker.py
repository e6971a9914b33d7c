"""Where Celery's messages and results go, and the key that seals them."""

import logging
from typing import Final

from tenantry.config import Settings
from tenantry.embedded import default_server
from tenantry.exceptions import ConfigurationError

logger = logging.getLogger("tenantry.celery")

_DATABASE_BROKERS: Final = ("sqla+", "sqlalchemy+")
_OWN_RESULTS: Final = ("redis://", "rediss://", "redis+socket://", "sentinel://")


def broker_url(settings: Settings) -> str:
    """Return the broker's URL: BROKER_URL, or a schema of its own in the embedded server.

    Raises:
        ConfigurationError: BROKER_URL is not set, and DATABASE_URL is: the embedded server is for
            development alone.
        EmbeddedServerError: the embedded server could not be started.
    """
    return settings.broker_url or f"sqla+{_embedded(settings, 'BROKER_URL')}"


def result_backend_url(settings: Settings) -> str:
    """Return the URL of the results: CELERY_RESULT_BACKEND, or beside the broker's messages.

    Raises:
        ConfigurationError: it is not set, and the broker is one that keeps no results.
        EmbeddedServerError: the embedded server could not be started.
    """
    if settings.result_backend:
        return settings.result_backend
    broker = settings.broker_url
    if broker is None:
        return f"db+{_embedded(settings, 'CELERY_RESULT_BACKEND')}"
    for prefix in _DATABASE_BROKERS:
        if broker.startswith(prefix):
            return f"db+{broker.removeprefix(prefix)}"
    if broker.startswith(_OWN_RESULTS):
        return broker
    raise ConfigurationError(
        f"CELERY_RESULT_BACKEND is not set, and the broker ({broker.partition(':')[0]}) keeps no "
        "results: name a Redis (redis://…) or a database (db+postgresql+psycopg2://…)"
    )


def task_key(settings: Settings) -> str:
    """Return the key that seals tenants into messages: TENANTRY_TASK_KEY.

    In development a random one is kept in the embedded server's home, readable for its owner alone.

    Raises:
        ConfigurationError: it is not set in production.
        EmbeddedServerError: the home cannot be used.
    """
    if settings.task_key is not None:
        return settings.task_key
    if settings.environment == "production":
        raise ConfigurationError(
            "TENANTRY_TASK_KEY is not set and TENANTRY_ENV is production: publishers and workers "
            "share a key of 32 bytes or more, such as "
            "`python -c 'import secrets; print(secrets.token_hex(32))'`"
        )
    server = default_server()
    logger.info("TENANTRY_TASK_KEY is not set: using the one of %s", server.home)
    return server.secret("task_key")


def _embedded(settings: Settings, variable: str) -> str:
    if settings.database_url is not None or settings.environment == "production":
        raise ConfigurationError(
            f"{variable} is not set, and DATABASE_URL is: the embedded server is not used then. "
            "Name a Redis, a RabbitMQ or, with a login that is a member of tenantry_broker, "
            "sqla+postgresql+psycopg2://user:password@host:5432/database"
        )
    server = default_server()
    server.start()
    logger.info("%s is not set: using the embedded server", variable)
    return server.url("courier").render_as_string(hide_password=False)

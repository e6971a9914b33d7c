"""What a command looks at: a database, and the tenancy of the project whose it is."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg2
import typer
from psycopg2.extensions import connection as Connection  # noqa: N812
from sqlalchemy.engine import URL

from tenantry.config import DEFAULT_CONFIG, Settings, TenancyConfig, libpq_url, parse_url
from tenantry.environment import application_url
from tenantry.exceptions import ConfigurationError, DatabaseUnreachableError

_HERE = "DATABASE_URL is not set: using the embedded server"


def named_settings() -> Settings:
    """Return the environment's settings; DATABASE_URL may name any driver, as libpq is used."""
    return Settings.from_environment(drivers=None)


def named_database(url: str | None, settings: Settings) -> URL:
    """Return the URL of `--url`, else of DATABASE_URL, else the embedded server's, which is said.

    Raises:
        ConfigurationError: the URL is empty or none of PostgreSQL's.
    """
    if url is not None:
        if not url.strip():
            raise ConfigurationError(
                "--url is empty: is the variable unset that it is taken from? Without --url it is "
                "the database of DATABASE_URL"
            )
        return parse_url(url, name="--url", drivers=None)
    if settings.database_url is None:
        typer.echo(_HERE, err=True)
    return application_url(settings)


def connect(target: URL, shown: URL) -> Connection:
    """Connect by libpq.

    Raises:
        DatabaseUnreachableError: no connection could be made to what is shown.
    """
    try:
        return psycopg2.connect(libpq_url(target))
    # A ProgrammingError where an option of the URL is another driver's.
    except (psycopg2.OperationalError, psycopg2.ProgrammingError) as error:
        raise DatabaseUnreachableError(
            f"no connection to {shown.render_as_string(hide_password=True)}: "
            f"{str(error).strip().partition(chr(10))[0]}"
        ) from error


def named_tenancy(name: str | None) -> TenancyConfig:
    """Return the configuration that `module:attribute` names; the default where there is no name.

    Raises:
        ConfigurationError: there is none.
    """
    if name is None:
        return DEFAULT_CONFIG
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        config: Any = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"--config {name!r} names no TenancyConfig: {error}. Write module:attribute, such as "
            "shop.models:TENANCY"
        ) from error
    if not isinstance(config, TenancyConfig):
        raise ConfigurationError(
            f"--config {name!r} is a {type(config).__name__}, no TenancyConfig"
        )
    return config

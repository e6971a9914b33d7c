"""Names that a database uses for its tenants, and the settings read from the environment."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self, TypeVar, get_args
from urllib.parse import quote, urlencode

from dotenv import dotenv_values, find_dotenv
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tenantry.exceptions import ConfigurationError

IdType = Literal["uuid", "bigint", "integer"]
Mode = Literal["auto", "database", "filters", "both"]
Scope = Literal["auto", "session", "transaction"]
ContextWay = Literal["auto", "separate", "prefix", "begin"]
Environment = Literal["development", "production"]

_Choice = TypeVar("_Choice", bound=str)

# PostgreSQL's own rule for the name of a custom setting: identifiers joined by dots.
_SETTING_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class TenancyConfig:
    """What a database calls its tenants: settings, column, id type and roles.

    Raises:
        ConfigurationError: a setting name is not one that PostgreSQL accepts, the id type is
            unknown, or a name is empty.
    """

    organization_setting: str = "app.current_organization"
    user_setting: str = "app.current_user"
    tenant_column: str = "organization_id"
    root_table: str = "organizations"
    id_type: IdType = "uuid"
    owner_role: str = "tenantry_owner"
    app_role: str = "tenantry_app"
    authenticator_role: str = "tenantry_authenticator"
    maintenance_role: str = "tenantry_maintenance"

    def __post_init__(self) -> None:
        for setting in (self.organization_setting, self.user_setting):
            if not _SETTING_NAME.fullmatch(setting):
                raise ConfigurationError(
                    f"{setting!r} cannot be a PostgreSQL setting: use two or more identifiers "
                    "joined by dots, such as 'app.current_organization'"
                )
        if self.organization_setting == self.user_setting:
            raise ConfigurationError(
                f"organization and user cannot share the setting {self.user_setting!r}"
            )
        if self.id_type not in get_args(IdType):
            raise ConfigurationError(
                f"id_type {self.id_type!r} is unknown: use one of {', '.join(get_args(IdType))}"
            )
        for name in (
            self.tenant_column,
            self.root_table,
            self.owner_role,
            self.app_role,
            self.authenticator_role,
            self.maintenance_role,
        ):
            if not name or "\x00" in name or len(name.encode()) > 63:
                raise ConfigurationError(
                    f"{name!r} cannot be an identifier in PostgreSQL (1 to 63 bytes, no NUL)"
                )


DEFAULT_CONFIG: Final = TenancyConfig()

SYNCHRONOUS_DRIVERS: Final = ("psycopg2", "psycopg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where the databases are and how the wall is chosen, as the environment says.

    A URL that is None means the embedded server. What carries passwords is left out of the value's
    repr.
    """

    environment: Environment = "development"
    mode: Mode = "auto"
    scope: Scope = "auto"
    context: ContextWay = "auto"
    database_url: URL | None = None
    migration_database_url: URL | None = None
    maintenance_database_url: URL | None = None
    broker_url: str | None = field(default=None, repr=False)
    result_backend: str | None = field(default=None, repr=False)
    task_key: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        drivers: tuple[str, ...] | None = SYNCHRONOUS_DRIVERS,
    ) -> Self:
        """Read the settings; with no argument, from `.env` and then from the process.

        `.env` is looked for from the working directory upwards; the process's own variables win.
        Migrations and maintenance run with psycopg2, also where their URL says psycopg, which
        reads the same ones.

        Args:
            environ: the variables.
            drivers: that DATABASE_URL may name; None for any.

        Raises:
            ConfigurationError: a value is malformed, or `TENANTRY_ENV=production` and
                `DATABASE_URL` is not set.
        """
        if environ is None:
            file = dotenv_values(find_dotenv(usecwd=True))
            environ = {k: v for k, v in file.items() if v is not None} | dict(os.environ)
        settings = cls(
            environment=_choice(environ, "TENANTRY_ENV", get_args(Environment), "development"),
            mode=_choice(environ, "TENANTRY_MODE", get_args(Mode), "auto"),
            scope=_choice(environ, "TENANTRY_SCOPE", get_args(Scope), "auto"),
            context=_choice(environ, "TENANTRY_CONTEXT", get_args(ContextWay), "auto"),
            database_url=_url(environ, "DATABASE_URL", drivers),
            migration_database_url=by_psycopg2(_url(environ, "MIGRATION_DATABASE_URL")),
            maintenance_database_url=by_psycopg2(_url(environ, "MAINTENANCE_DATABASE_URL")),
            broker_url=environ.get("BROKER_URL", "").strip() or None,
            result_backend=environ.get("CELERY_RESULT_BACKEND", "").strip() or None,
            task_key=environ.get("TENANTRY_TASK_KEY", "").strip() or None,
        )
        if settings.environment == "production" and settings.database_url is None:
            raise ConfigurationError(
                "DATABASE_URL is not set and TENANTRY_ENV is production, where the embedded server "
                "is never used: set DATABASE_URL to the application role's URL, "
                "postgresql+psycopg2://user:password@host:5432/database"
            )
        return settings


def parse_url(
    text: str, *, name: str = "the database URL", drivers: tuple[str, ...] | None = ("psycopg2",)
) -> URL:
    """Return the URL with its driver written out.

    A bare `postgresql://` would mean another driver from SQLAlchemy 2.1 on, so it is made
    explicit here: the first of those that are accepted, where None accepts any.

    Raises:
        ConfigurationError: the text is no URL, not PostgreSQL, or names another driver. The text
            is not repeated, since it may hold a password.
    """
    accepted = [f"postgresql+{driver}" for driver in drivers or SYNCHRONOUS_DRIVERS]
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError(
            f"{name} is not a database URL: write {accepted[0]}://user:password@host:5432/"
            "database, with special characters in the password percent-encoded"
        ) from error
    if url.drivername in {"postgresql", "postgres"}:
        url = url.set(drivername=accepted[0])
    if drivers is None and url.drivername.startswith("postgresql+"):
        return url
    if url.drivername not in accepted:
        raise ConfigurationError(
            f"{name} names the driver {url.drivername!r}: use {' or '.join(accepted)}"
        )
    return url


def by_psycopg2(url: URL | None) -> URL | None:
    """Return the URL with psycopg2 as its driver; psycopg 3 reads the same ones."""
    return None if url is None else url.set(drivername="postgresql+psycopg2")


def libpq_url(url: URL) -> str:
    """Return the URL as psql and libpq read it, password included."""
    # SQLAlchemy leaves the database's name as it is and writes a space in an option as "+"; libpq
    # decodes percent signs alone.
    plain = URL.create("postgresql", url.username, url.password, url.host, url.port)
    query = [(key, value) for key in url.query for value in url.normalized_query[key]]
    return (
        f"{plain.render_as_string(hide_password=False).removesuffix('/')}"
        f"/{quote(url.database or '', safe='')}"
        + (f"?{urlencode(query, quote_via=quote)}" if query else "")
    )


def _url(
    environ: Mapping[str, str], name: str, drivers: tuple[str, ...] | None = SYNCHRONOUS_DRIVERS
) -> URL | None:
    text = environ.get(name, "").strip()
    return parse_url(text, name=name, drivers=drivers) if text else None


def _choice(
    environ: Mapping[str, str], name: str, choices: tuple[_Choice, ...], default: _Choice
) -> _Choice:
    text = environ.get(name, "").strip().lower() or default
    for choice in choices:
        if text == choice:
            return choice
    raise ConfigurationError(f"{name} is {text!r}: use one of {', '.join(choices)}")

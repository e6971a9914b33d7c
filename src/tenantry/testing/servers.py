"""A PostgreSQL server for a test run: which one, how it is reached, and its databases."""

import logging
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, Self, get_args

from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy.engine import URL

from tenantry.config import parse_url
from tenantry.embedded import EmbeddedServer, Login, provisioning
from tenantry.embedded.bootstrap import ROLES
from tenantry.embedded.caretaker import Caretaker
from tenantry.exceptions import ConfigurationError, DatabaseUnreachableError, WrongRoleError
from tenantry.testing import administration

logger = logging.getLogger("tenantry")

Kind = Literal["url", "container", "embedded"]
Choice = Literal["auto", "url", "container", "embedded"]

_GUESTS: Final[frozenset[Login]] = frozenset({"app", "maintenance", "courier"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A running server, whose databases belong to the migrator and admit its own logins alone.

    Attributes:
        name: how it was found.
        version: of the server, such as '15.18'.
        superuser: whether `admin_url` is a superuser's; without one there is no maintenance login.
        logins: a URL for each login, passwords included.
    """

    name: Kind
    version: str
    superuser: bool
    logins: Mapping[Login, URL] = field(repr=False)
    _release: Callable[[], None] = field(repr=False)
    _databases: set[str] = field(default_factory=set, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def admin_url(self) -> URL:
        """Return the URL of the role that administers the server, in its own database."""
        return self.logins["superuser"]

    def url(self, login: Login, database: str) -> URL:
        """Return the URL of a login in a database.

        Raises:
            WrongRoleError: the server has no such login, as its administrator may not create it.
        """
        if login not in self.logins:
            raise WrongRoleError(
                f"the server has no {login} login, because {self.admin_url.username!r} is no "
                "superuser: name a superuser's URL in TEST_DATABASE_URL"
            )
        return self.logins[login].set(database=database)

    def owner_url(self, database: str) -> URL:
        """Return the URL of the migrator, the owner of the databases."""
        return self.url("owner", database)

    def app_url(self, database: str) -> URL:
        """Return the URL of the application's login."""
        return self.url("app", database)

    def maintenance_url(self, database: str) -> URL:
        """Return the URL of the login for work across tenants."""
        return self.url("maintenance", database)

    def create_database(self, *, template: str | None = None) -> "Database":
        """Create a database with a random name, as a copy of the template if one is named.

        The copy has the template's privileges and settings too, which CREATE DATABASE leaves
        behind. Nobody may be connected to the template.
        """
        name = f"tenantry_{secrets.token_hex(6)}"
        owner = sql.SQL(" owner {}").format(sql.Identifier(ROLES["owner"]))
        with self._administration() as cursor:
            cursor.execute(
                sql.SQL("create database {} template {}{}").format(
                    sql.Identifier(name),
                    sql.Identifier(template or "template1"),
                    owner if self.superuser else sql.SQL(""),
                )
            )
            self._databases.add(name)
            provisioning.close_to_public(cursor, name)
            if template is None:
                provisioning.admit(
                    cursor, name, [ROLES[login] for login in self.logins if login in _GUESTS]
                )
            else:
                administration.copy_privileges(cursor, template, name)
                provisioning.copy_settings(cursor, template, name)
        if template is None and self.superuser:
            with administration.connected(self.url("superuser", name)) as cursor:
                provisioning.restrict(cursor)
        return Database(self, name)

    def seal(self, database: str) -> None:
        """Refuse new connections to the database, so that it can be copied at any time."""
        with self._administration() as cursor:
            cursor.execute(
                sql.SQL("alter database {} with allow_connections false").format(
                    sql.Identifier(database)
                )
            )

    def drop_database(self, database: str) -> None:
        """Drop the database if it exists, ending the connections to it."""
        with self._administration() as cursor:
            cursor.execute(
                sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(database))
            )
        self._databases.discard(database)

    def stop(self) -> None:
        """Leave nothing behind: the server is gone or, if it was not ours, our databases are.

        The roles stay on a server that was not ours, since other databases may need them.
        """
        try:
            if self.name == "url":
                for database in sorted(self._databases):
                    self.drop_database(database)
        finally:
            self._release()

    @contextmanager
    def _administration(self) -> Iterator[Cursor]:
        # An ordinary administrator may not give a database to the migrator, who makes it then.
        login: Login = "superuser" if self.superuser else "owner"
        with administration.connected(
            self.url(login, self.admin_url.database or "postgres")
        ) as cursor:
            yield cursor


@dataclass(frozen=True, slots=True)
class Database:
    """A database of a test server."""

    server: Server
    name: str

    @property
    def app_url(self) -> URL:
        """Return the URL of the application's login."""
        return self.server.app_url(self.name)

    @property
    def owner_url(self) -> URL:
        """Return the URL of the migrator."""
        return self.server.owner_url(self.name)

    @property
    def maintenance_url(self) -> URL:
        """Return the URL of the login for work across tenants."""
        return self.server.maintenance_url(self.name)

    @property
    def superuser_url(self) -> URL:
        """Return the URL of the superuser.

        Raises:
            WrongRoleError: the server was given without one.
        """
        if not self.server.superuser:
            raise WrongRoleError(
                f"{self.server.admin_url.username!r} is no superuser: name a superuser's URL in "
                "TEST_DATABASE_URL"
            )
        return self.server.url("superuser", self.name)

    def drop(self) -> None:
        """Drop the database, ending the connections to it."""
        self.server.drop_database(self.name)


def find_server(choice: Choice = "auto", environ: Mapping[str, str] = os.environ) -> Server:
    """Return a server that is ready for tests; the caller stops it.

    `auto` takes the first of these: `TEST_DATABASE_URL`, where random databases are created and
    dropped again; a container, when an engine answers within two seconds; an embedded server of
    its own in a temporary folder. Any other choice is that or an error.

    On the server of `TEST_DATABASE_URL` the logins get passwords derived from the administrator's,
    so that two runs at once do not lock each other out. It must not hold anything but tests.

    Raises:
        ConfigurationError: the chosen server is not configured, or is older than PostgreSQL 15.
        DatabaseUnreachableError: it cannot be started or reached.
        WrongRoleError: the role of `TEST_DATABASE_URL` can create neither roles nor databases.
        EmbeddedServerError: the embedded server does not start.
    """
    if choice not in get_args(Choice):
        raise ConfigurationError(
            f"{choice!r} is no kind of test server: use one of {', '.join(get_args(Choice))}"
        )
    text = environ.get("TEST_DATABASE_URL", "").strip()
    if choice == "url" or (choice == "auto" and text):
        if not text:
            raise ConfigurationError(
                "TEST_DATABASE_URL is not set: name a superuser's URL of a server for tests, "
                "postgresql+psycopg2://user:password@host:5432/postgres"
            )
        return _adopt("url", parse_url(text, name="TEST_DATABASE_URL"), lambda: None)
    if choice != "embedded":
        fault = _container_fault()
        if fault is None:
            admin, release = import_module("tenantry.testing.containers").start_container(environ)
            return _adopt("container", admin, release)
        if choice == "container":
            raise DatabaseUnreachableError(f"{fault}. Start one, or use the embedded server")
        logger.info("%s; the embedded server is used", fault)
    return _embedded()


def _container_fault() -> str | None:
    # testcontainers is an optional dependency, and takes longer to import than all the rest.
    if find_spec("testcontainers") is None:
        return "testcontainers is not installed (pip install 'tenantry[testing]')"
    fault: str | None = import_module("tenantry.testing.containers").engine_fault()
    return fault


def _embedded() -> Server:
    home = Path(tempfile.mkdtemp(prefix="tenantry-"))
    caretaker = Caretaker(home)
    embedded = EmbeddedServer(home, durable=False)
    try:
        embedded.start()
        logins: dict[Login, URL] = {
            login: embedded.url(login, "postgres") for login in get_args(Login)
        }
    except BaseException:
        caretaker.release()
        raise
    return Server(
        name="embedded",
        version=embedded.version,
        superuser=True,
        logins=logins,
        _release=caretaker.release,
    )


def _adopt(name: Kind, admin: URL, release: Callable[[], None]) -> Server:
    """Return a server of somebody else's making, with the logins created on it."""
    try:
        found = administration.create_logins(admin)
    except BaseException:
        release()
        raise
    return Server(
        name=name,
        version=found.version,
        superuser=found.superuser,
        logins=found.logins,
        _release=release,
    )

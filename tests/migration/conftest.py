"""What the tests of the migrations share: Alembic as a command, psql, pg_dump, a bare server."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg2
import pytest
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer
from tenantry.embedded.binaries import find_binaries
from tenantry.testing import Database
from tenantry.testing.administration import connected

ROOT = Path(__file__).parents[2]

Result = subprocess.CompletedProcess[str]
Execute = Callable[..., list[tuple[object, ...]]]
Dump = Callable[..., str]


class RunAlembic(Protocol):
    """Run `alembic` as a person does: a process of its own, configured by its environment."""

    def __call__(
        self, *arguments: str, folder: Path = ROOT, **variables: URL | str
    ) -> subprocess.CompletedProcess[str]:
        """Return what came of it."""


class StartAlembic(Protocol):
    """Start `alembic` and return at once."""

    def __call__(
        self, *arguments: str, folder: Path = ROOT, **variables: URL | str
    ) -> subprocess.Popen[str]:
        """Return the running process; its errors are in its standard error."""


class Psql(Protocol):
    """Run psql with a script on its standard input."""

    def __call__(self, url: URL, *arguments: str, script: str = "") -> Result:
        """Return what came of it."""


@pytest.fixture(scope="session")
def start_alembic() -> StartAlembic:
    """Return what starts the command line."""

    def start(
        *arguments: str, folder: Path = ROOT, **variables: URL | str
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=folder,
            env=_environment(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def run_alembic(start_alembic: StartAlembic) -> RunAlembic:
    """Return what runs the command line to its end."""

    def run(*arguments: str, folder: Path = ROOT, **variables: URL | str) -> Result:
        process = start_alembic(*arguments, folder=folder, **variables)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    return run


def _environment(variables: dict[str, URL | str]) -> dict[str, str]:
    # Empty is unset, and wins over a developer's .env.
    unset = dict.fromkeys(
        ("DATABASE_URL", "MIGRATION_DATABASE_URL", "MAINTENANCE_DATABASE_URL", "TENANTRY_ENV"), ""
    )
    given = {
        name: value.render_as_string(hide_password=False) if isinstance(value, URL) else value
        for name, value in variables.items()
    }
    return os.environ | unset | given


@pytest.fixture(scope="session")
def execute() -> Execute:
    """Return what executes statements with a URL, in one transaction, and fetches the last rows."""

    def run(url: URL, *statements: str) -> list[tuple[object, ...]]:
        with (
            closing(psycopg2.connect(libpq_url(url))) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    return run


@pytest.fixture(scope="session")
def psql() -> Psql:
    """Return what runs psql, without a startup file, and stops it at the first error."""

    def run(url: URL, *arguments: str, script: str = "") -> Result:
        return subprocess.run(
            [
                find_binaries().psql,
                *("-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", libpq_url(url)),
                *arguments,
            ],
            input=script,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def dump() -> Dump:
    """Return what describes a database: its schema with owners and grants, and what is its own."""

    def describe(database: Database, *arguments: str) -> str:
        program = find_binaries().folder / "pg_dump"
        url = libpq_url(database.superuser_url)
        dumped = subprocess.run(
            [program, "--schema-only", *arguments, url],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        # Newer versions put a random key around the script; grants come in the order of making.
        lines = re.sub(r"^\\(un)?restrict .*\n", "", dumped, flags=re.MULTILINE).splitlines()
        lines.sort(key=lambda line: line if line.startswith("GRANT ") else "")
        schema = "\n".join(lines)
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute(_OF_THE_DATABASE)
            return f"{schema}\n{cursor.fetchall()}"

    return describe


# Grants as a set: the order in which they were made tells nothing.
_OF_THE_DATABASE = """
select
  array(select acl::text from pg_database, unnest(datacl) as acl
        where datname = current_database() order by 1),
  array(select s.setconfig::text from pg_db_role_setting s
        join pg_database d on d.oid = s.setdatabase where d.datname = current_database()
        order by 1)
"""


@dataclass(frozen=True)
class Site:
    """A database on a server that knows no role of ours, as somebody's own server does not."""

    superuser: URL
    execute: Execute

    def login(self, name: str, attributes: str = "") -> URL:
        """Create a login and return its URL."""
        password = secrets.token_urlsafe(12)
        self.execute(self.superuser, f"create role {name} login password '{password}' {attributes}")
        return self.superuser.set(username=name, password=password)

    def owner(self, name: str, attributes: str = "") -> URL:
        """Create a login that owns the database."""
        url = self.login(name, attributes)
        self.execute(self.superuser, f"alter database {url.database} owner to {name}")
        return url


@pytest.fixture(scope="package")
def bare_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Return a server of these tests' own, on which roles come and go."""
    server = EmbeddedServer(tmp_path_factory.mktemp("bare"), durable=False)
    server.start()
    try:
        with connected(server.url("superuser", "postgres")) as cursor:
            cursor.execute("drop database tenantry")
            _drop_roles(cursor)
        yield server
    finally:
        server.reset()


@pytest.fixture
def site(bare_server: EmbeddedServer, execute: Execute) -> Iterator[Site]:
    """Return an untouched database; it and the roles made meanwhile are gone afterwards."""
    name = f"site_{secrets.token_hex(4)}"
    with connected(bare_server.url("superuser", "postgres")) as cursor:
        cursor.execute(f"create database {name} template template0")
        yield Site(bare_server.url("superuser", name), execute)
        cursor.execute(
            "select datname from pg_database where datname not in ('postgres', 'template0',"
            " 'template1')"
        )
        for (database,) in cursor.fetchall():
            cursor.execute(f"drop database {database} with (force)")
        _drop_roles(cursor)


def _drop_roles(cursor: Any) -> None:
    cursor.execute(
        "select string_agg(quote_ident(rolname), ', ') from pg_roles"
        " where rolname not like 'pg\\_%' and rolname <> current_user"
    )
    ((roles,),) = cursor.fetchall()
    if roles:
        cursor.execute(f"drop owned by {roles}")
        cursor.execute(f"drop role {roles}")

"""The pytest plugin: a server for the run, a migrated template, and copies of it for the tests."""

from collections.abc import Callable, Iterator
from typing import Any, cast, get_args

import pytest
from sqlalchemy.engine import URL

from tenantry.exceptions import TenancyError
from tenantry.testing.roles import check_unprivileged
from tenantry.testing.servers import Choice, Database, Server, find_server

Migrate = Callable[[URL, URL], None]

_SERVER = pytest.StashKey[Server]()
_SERVERS_OF_PROCESSES = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--tenantry-server` and the ini option `tenantry_server_header`."""
    parser.getgroup("tenantry").addoption(
        "--tenantry-server",
        choices=get_args(Choice),
        default="auto",
        help="PostgreSQL server for the tests; auto (default): TEST_DATABASE_URL, else a container "
        "when a Docker engine answers, else the embedded server",
    )
    parser.addini(
        "tenantry_server_header",
        "start the test server at once, so that the header of the report names it",
        type="bool",
        default=False,
    )


def pytest_report_header(config: pytest.Config) -> str:
    """Name the server and its version, where the project wants it started at once.

    With pytest-xdist each of its processes has a server of its own; the summary names them.
    """
    if not config.getini("tenantry_server_header") or config.option.collectonly:
        return "tenantry: server starts when first used"
    if config.getoption("dist", "no") != "no":
        return "tenantry: a server for each process"
    try:
        return f"tenantry: {_describe(_started(config))}"
    except TenancyError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Keep what a process of pytest-xdist's has said of its server."""
    described = getattr(node, "workeroutput", {}).get("tenantry_server")
    if described is not None:
        node.config.stash.setdefault(_SERVERS_OF_PROCESSES, set()).add(described)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the servers of pytest-xdist's processes."""
    for described in sorted(config.stash.get(_SERVERS_OF_PROCESSES, ())):
        terminalreporter.write_line(f"tenantry: {described}, one for each process")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the server, if one was started."""
    server = config.stash.get(_SERVER, None)
    if server is not None:
        del config.stash[_SERVER]
        server.stop()


def _started(config: pytest.Config) -> Server:
    if _SERVER not in config.stash:
        server = find_server(cast("Choice", config.getoption("tenantry_server")))
        config.stash[_SERVER] = server
        if hasattr(config, "workeroutput"):
            config.workeroutput["tenantry_server"] = _describe(server)
    return config.stash[_SERVER]


def _describe(server: Server) -> str:
    return f"{server.name} server, PostgreSQL {server.version}"


@pytest.fixture(scope="session")
def tenantry_server(pytestconfig: pytest.Config) -> Server:
    """Return the server of the run, which is started when first used."""
    return _started(pytestconfig)


@pytest.fixture(scope="session")
def tenantry_migrate() -> Migrate:
    """Return what migrates an empty database, given the migrator's URL and the application's.

    A project defines a fixture of this name in its own conftest.py, with its migrations.
    """
    raise pytest.UsageError(
        "define a session fixture tenantry_migrate in conftest.py: it returns a function that "
        "migrates a database, called with the migrator's URL and the application's"
    )


@pytest.fixture(scope="session")
def tenantry_template(tenantry_server: Server, tenantry_migrate: Migrate) -> Iterator[str]:
    """Return the name of a migrated database that only serves to be copied."""
    database = tenantry_server.create_database()
    try:
        tenantry_migrate(database.owner_url, database.app_url)
        tenantry_server.seal(database.name)
        yield database.name
    finally:
        database.drop()


@pytest.fixture(scope="session")
def tenantry_database(tenantry_server: Server, tenantry_template: str) -> Iterator[Database]:
    """Return the migrated database that the tests of the session share."""
    database = tenantry_server.create_database(template=tenantry_template)
    yield database
    database.drop()


@pytest.fixture
def fresh_database(tenantry_server: Server, tenantry_template: str) -> Iterator[Database]:
    """Return a migrated database of the test's own."""
    database = tenantry_server.create_database(template=tenantry_template)
    yield database
    database.drop()


@pytest.fixture
def empty_database(tenantry_server: Server) -> Iterator[Database]:
    """Return a database of the test's own that no migration has touched."""
    database = tenantry_server.create_database()
    yield database
    database.drop()


@pytest.fixture(scope="session")
def unprivileged_app(tenantry_database: Database) -> None:
    """Fail unless the application's login is subject to row security."""
    check_unprivileged(tenantry_database.app_url)


@pytest.fixture(scope="session")
def app_url(tenantry_database: Database, unprivileged_app: None) -> URL:  # noqa: ARG001
    """Return the application's URL of the shared database, proven to be unprivileged."""
    return tenantry_database.app_url


@pytest.fixture(scope="session")
def owner_url(tenantry_database: Database) -> URL:
    """Return the migrator's URL of the shared database."""
    return tenantry_database.owner_url


@pytest.fixture(scope="session")
def maintenance_url(tenantry_database: Database) -> URL:
    """Return the maintenance login's URL of the shared database."""
    return tenantry_database.maintenance_url


@pytest.fixture(scope="session")
def superuser_url(tenantry_database: Database) -> URL:
    """Return the superuser's URL of the shared database."""
    return tenantry_database.superuser_url

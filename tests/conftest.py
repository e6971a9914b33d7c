"""What all tests share: Assay's migrations, services that may be missing, PgBouncer."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import pytest
from alembic import command
from alembic.config import Config
from bench.pooler import find_pooler, pooler, through
from hypothesis import HealthCheck, settings
from sqlalchemy.engine import URL
from tests.fixtures.ports import free_port

from tenantry.testing import Server

ROOT = Path(__file__).resolve().parent.parent

pytest_plugins = ["pytester"]

# A shell's background job ignores SIGINT, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The default server is the checkout's, and would be left running: a test that needs one has a home
# of its own.
os.environ["TENANTRY_HOME"] = f"{os.devnull}/tests-have-homes-of-their-own"

# How long an example takes is the machine's doing, and a busy one's is no fault of the code.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

Migrate = Callable[[URL, URL], None]


class RequireService(Protocol):
    """Skip the test when something it needs is missing; in CI, where CI=true, fail it."""

    def __call__(self, available: object, reason: str) -> None:
        """Return if it is available; the reason says what is missing and how to get it."""


class PgBouncer(Protocol):
    """Start a pooler of the test's own, and return the URL that leads through it."""

    def __call__(self, url: URL, *, pool_size: int = 1, pool_mode: str = "transaction") -> URL:
        """Return the same login and database, by way of a pool of so many server connections."""


@pytest.fixture(scope="session")
def require_service() -> RequireService:
    """Return what turns a missing service into a skip here, and into a failure in CI."""

    def require(available: object, reason: str) -> None:
        if available:
            return
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"CI has every service, but {reason}", pytrace=False)
        pytest.skip(reason)

    return require


@pytest.fixture(scope="session")
def alembic_config() -> Callable[[URL, URL], Config]:
    """Return what configures Alembic for a database: the migrator's URL and the application's."""

    def configure(owner_url: URL, app_url: URL) -> Config:
        config = Config(ROOT / "alembic.ini")
        config.attributes["url"] = owner_url
        config.attributes["application_url"] = app_url
        return config

    return configure


@pytest.fixture(scope="session")
def tenantry_migrate(alembic_config: Callable[[URL, URL], Config]) -> Migrate:
    """Return what migrates an empty database to Assay's latest revision."""

    def migrate(owner_url: URL, app_url: URL) -> None:
        command.upgrade(alembic_config(owner_url, app_url), "head")

    return migrate


@pytest.fixture
def pgbouncer(tenantry_server: Server, require_service: RequireService) -> Iterator[PgBouncer]:
    """Return what starts a real PgBouncer in front of the test server, on 127.0.0.1."""
    require_service(find_pooler(), "pgbouncer is not installed (apt install pgbouncer)")
    with ExitStack() as stack:

        def start(url: URL, *, pool_size: int = 1, pool_mode: str = "transaction") -> URL:
            started = pooler(tenantry_server, free_port(), pool_size=pool_size, pool_mode=pool_mode)
            return through(url, stack.enter_context(started))

        yield start

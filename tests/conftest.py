"""What all tests share: Assay's migrations, services that may be missing, PgBouncer."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Protocol

import pytest
from alembic import command
from alembic.config import Config
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
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    require_service(program, "pgbouncer is not installed (apt install pgbouncer)")
    with ExitStack() as stack:

        def start(url: URL, *, pool_size: int = 1, pool_mode: str = "transaction") -> URL:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pgbouncer-")))
            port = free_port()
            configuration = _configure(
                folder, tenantry_server, port=port, pool_size=pool_size, pool_mode=pool_mode
            )
            account = _unprivileged_account(folder)
            log = stack.enter_context((folder / "log").open("wb"))
            process = subprocess.Popen(
                [str(program), str(configuration)],
                user=account,
                extra_groups=None if account is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(_stop, process)
            _await_port(port, process, folder / "log")
            return url.set(host="127.0.0.1", port=port)

        yield start


def _configure(folder: Path, server: Server, *, port: int, pool_size: int, pool_mode: str) -> Path:
    # With the passwords themselves PgBouncer speaks SCRAM on both of its sides.
    users = folder / "users"
    users.write_text(
        "".join(f'"{url.username}" "{url.password}"\n' for url in server.logins.values())
    )
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"""
[databases]
* = host={server.admin_url.host} port={server.admin_url.port or 5432}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = {pool_mode}
default_pool_size = {pool_size}
"""
    )
    users.chmod(0o600)
    return configuration


def _unprivileged_account(folder: Path) -> int | None:
    """Give the folder to a user that PgBouncer, which refuses root, runs as."""
    if os.geteuid() != 0:
        return None
    account = pwd.getpwnam("nobody").pw_uid
    for path in (folder, *folder.iterdir()):
        os.chown(path, account, -1)
    return account


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with closing(socket.socket()) as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    pytest.fail(f"pgbouncer did not start:\n{log.read_text()}", pytrace=False)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

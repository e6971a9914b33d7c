"""A PgBouncer of one's own in front of a server, on 127.0.0.1."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy.engine import URL

from tenantry.testing import Server

_SECONDS: Final = 60


def find_pooler() -> str | None:
    """Return the program, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def pooler(
    server: Server, port: int | None = None, *, pool_size: int = 1, pool_mode: str = "transaction"
) -> Iterator[tuple[str, int]]:
    """Yield the host and port of a pooler with so many server connections for each login.

    Args:
        server: behind it.
        port: that is free; None for any.
        pool_size: connections to the server.
        pool_mode: as PgBouncer has it.

    Raises:
        RuntimeError: PgBouncer is not installed, or does not start.
    """
    program = find_pooler()
    if program is None:
        raise RuntimeError("pgbouncer is not installed (apt install pgbouncer)")
    with tempfile.TemporaryDirectory(prefix="pgbouncer-") as name:
        folder, port = Path(name), port or _free_port()
        configuration = _configure(
            folder, server, port=port, pool_size=pool_size, pool_mode=pool_mode
        )
        account = _unprivileged_account(folder)
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [program, str(configuration)],
                user=account,
                extra_groups=None if account is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            _await_port(port, process, folder / "log")
            yield "127.0.0.1", port
        finally:
            _stop(process)


def through(url: URL, address: tuple[str, int]) -> URL:
    """Return the same login and database, by way of the pooler at the address."""
    host, port = address
    return url.set(host=host, port=port)


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


def _free_port() -> int:
    with closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _await_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with closing(socket.socket()) as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise RuntimeError(f"pgbouncer did not start:\n{log.read_text()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

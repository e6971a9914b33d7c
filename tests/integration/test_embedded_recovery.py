"""The embedded server after crashes, races and other misfortunes."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg2
import pytest

from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer, ServerStatus
from tenantry.exceptions import EmbeddedServerError

STARTER = """
import sys
from pathlib import Path
from tenantry.embedded import EmbeddedServer
server = EmbeddedServer(Path(sys.argv[1]), durable=False)
sys.stdin.readline()
server.start()
print(server.status().pid)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path / "home", durable=False)
    try:
        yield server
    finally:
        server.reset()


def running(server: EmbeddedServer) -> tuple[ServerStatus, Path, int]:
    status = server.status()
    assert status.running
    assert status.data_folder is not None
    assert status.pid is not None
    return status, status.data_folder, status.pid


def kill(pid: int) -> None:
    """Kill the server's process, which is no child of this one, and wait until it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while _working_directory(pid):
        time.sleep(0.01)


def write_row(server: EmbeddedServer) -> None:
    with (
        closing(psycopg2.connect(libpq_url(server.url("owner")))) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("create table public.kept as select 7 as n")


def read_row(server: EmbeddedServer) -> int:
    with (
        closing(psycopg2.connect(libpq_url(server.url("owner")))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("select n from public.kept")
        row = cursor.fetchone()
        assert row is not None
        return int(row[0])


def test_processes_that_start_it_at_once_get_one_server(server: EmbeddedServer) -> None:
    """Four starters of a new home agree on one process, which outlives them all."""
    starters = [
        subprocess.Popen(
            [sys.executable, "-c", STARTER, server.home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.write("go\n")
        starter.stdin.flush()
    pids = {int(starter.communicate(timeout=120)[0]) for starter in starters}
    assert [starter.returncode for starter in starters] == [0, 0, 0, 0]
    assert pids == {running(server)[2]}


def test_start_and_stop_can_be_repeated(server: EmbeddedServer) -> None:
    """Starting twice keeps the process; stopping twice is no error; the data stay."""
    server.stop()
    server.start()
    first = running(server)[2]
    write_row(server)
    server.start()
    assert running(server)[2] == first
    server.stop()
    server.stop()
    assert not server.is_running()
    assert server.status().pid is None
    server.start()
    assert read_row(server) == 7


def test_stop_does_not_wait_for_clients(server: EmbeddedServer) -> None:
    """An open connection is ended, and what it did not commit is gone."""
    server.start()
    with (
        closing(psycopg2.connect(libpq_url(server.url("owner")))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("create table public.kept ()")
        server.stop()
        with pytest.raises(psycopg2.OperationalError):
            cursor.execute("select 1")


def test_killed_server_is_recovered(server: EmbeddedServer) -> None:
    """After SIGKILL, with a client still connected, the next start has every committed row."""
    server.start()
    write_row(server)
    pid = running(server)[2]
    with closing(psycopg2.connect(libpq_url(server.url("app")))):
        kill(pid)
        assert not server.is_running()
        server.start()
    assert running(server)[2] != pid
    assert read_row(server) == 7


def test_stale_pid_of_a_living_stranger_is_not_believed(server: EmbeddedServer) -> None:
    """A postmaster.pid whose number went to another process is neither obeyed nor signalled."""
    server.start()
    write_row(server)
    _, data, pid = running(server)
    pid_file = data / "postmaster.pid"
    left_over = pid_file.read_text()
    kill(pid)
    owner = data.stat()
    stranger = subprocess.Popen(
        ["/bin/sleep", "600"],
        user=owner.st_uid if os.geteuid() == 0 else None,
        group=owner.st_gid if os.geteuid() == 0 else None,
        extra_groups=[] if os.geteuid() == 0 else None,
    )
    try:
        pid_file.write_text(left_over.replace(str(pid), str(stranger.pid), 1))
        assert not server.is_running()
        server.stop()
        assert stranger.poll() is None
        server.start()
        assert read_row(server) == 7
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def _as_before_preparation(server: EmbeddedServer) -> None:
    record_file = next(server.home.glob("pg*.json"))
    record = json.loads(record_file.read_text())
    record_file.write_text(json.dumps(record | {"ready": False}))


def _server_left_running(server: EmbeddedServer) -> None:
    _as_before_preparation(server)


def _initdb_cut_short(server: EmbeddedServer) -> None:
    data = running(server)[1]
    server.stop()
    (data / "PG_VERSION").unlink()
    (data / "global" / "pg_control").unlink()
    (data.parent / "password").touch()
    _as_before_preparation(server)


def _record_half_written(server: EmbeddedServer) -> None:
    record_file = next(server.home.glob("pg*.json"))
    record_file.write_text(record_file.read_text()[:-20])


def _data_removed(server: EmbeddedServer) -> None:
    shutil.rmtree(running(server)[1])


def _home_removed(server: EmbeddedServer) -> None:
    shutil.rmtree(server.home)


@pytest.mark.parametrize(
    "misfortune",
    [
        _server_left_running,
        _initdb_cut_short,
        _record_half_written,
        _data_removed,
        _home_removed,
    ],
)
def test_unfinished_server_is_made_anew(
    server: EmbeddedServer, misfortune: Callable[[EmbeddedServer], None]
) -> None:
    """A starter that died on its way, or lost files, leaves nothing that stops the next one."""
    server.start()
    pid = running(server)[2]
    misfortune(server)
    assert not server.is_running()
    server.start()
    assert running(server)[2] != pid
    with closing(psycopg2.connect(libpq_url(server.url("app")))):
        pass
    if _working_directory(pid):
        # With its data folder gone a server ends by itself, but only within a minute.
        kill(pid)


def test_taken_port_is_replaced(server: EmbeddedServer) -> None:
    """Another program on the server's last port costs the server that port, not its start."""
    server.start()
    port = running(server)[0].port
    assert port is not None
    server.stop()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        server.start()
        assert running(server)[0].port != port
        assert server.url().port == running(server)[0].port


def test_reset_leaves_no_data_behind(server: EmbeddedServer) -> None:
    """After a reset neither data nor passwords are left, and the next start begins anew."""
    server.start()
    write_row(server)
    _, data, _ = running(server)
    password = server.url().password
    server.reset()
    server.reset()
    assert not data.parent.exists()
    assert sorted(path.name for path in server.home.iterdir()) == [".gitignore", "server.lock"]
    server.start()
    assert server.url().password != password
    with pytest.raises(psycopg2.errors.UndefinedTable):
        read_row(server)


def test_failed_start_quotes_the_log(server: EmbeddedServer) -> None:
    """What PostgreSQL complained about is in the error, with the way out."""
    server.start()
    data = running(server)[1]
    server.stop()
    (data / "global" / "pg_control").unlink()
    with pytest.raises(EmbeddedServerError, match=r"(?s)tenantry db reset.*pg_control"):
        server.start()
    assert not server.is_running()


def test_record_that_points_elsewhere_is_refused(server: EmbeddedServer, tmp_path: Path) -> None:
    """A forged record cannot make reset remove a folder the server never had."""
    server.start()
    record_file = next(server.home.glob("pg*.json"))
    honest = record_file.read_text()
    victim = tmp_path / "victim"
    victim.mkdir()
    record_file.write_text(json.dumps(json.loads(honest) | {"folder": str(victim)}))
    with pytest.raises(EmbeddedServerError, match="belongs to a home at another path"):
        server.reset()
    assert victim.exists()
    record_file.write_text(honest)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down to another user")
def test_reachable_home_of_root_holds_the_data() -> None:
    """Where the server's user can get, root's server keeps its data in the home itself."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        project = Path(folder)
        project.chmod(0o755)
        server = EmbeddedServer(project / ".tenantry", durable=False)
        try:
            server.start()
            _, data, _ = running(server)
            assert data.is_relative_to(server.home)
            assert server.home.stat().st_uid == data.stat().st_uid != 0
            assert project.stat().st_uid == 0
        finally:
            server.reset()


def _working_directory(pid: int) -> Path | None:
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return None

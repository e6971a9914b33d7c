"""The real run: two organizations, a real worker with four processes, an application that errs."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import RequireService
from tests.fixtures.assay_workers import ROOT, environment
from tests.fixtures.redis_servers import new_redis, redis_program
from tests.fixtures.task_board import wait_until

from tenantry.embedded import EmbeddedServer
from tenantry.testing import Database

DATA = Path(os.environ.get("ASSAY_DATA") or ROOT.parent / "shared" / "data")


def test_counts_of_a_sample_are_those_served(fresh_database: Database) -> None:
    """The built-in sample of 250 tests, on PostgreSQL as the broker: nothing needs other files."""
    assert "250 tests" in _run(fresh_database)


def test_counts_of_the_published_sets_are_those_served(fresh_database: Database) -> None:
    """All of GSM8K and TruthfulQA at the same time, on PostgreSQL as the broker."""
    if not DATA.is_dir():
        pytest.skip("the published data sets are not next to the project")
    assert "2,136 tests" in _run(fresh_database, f"--data={DATA}")


def test_counts_are_those_served_with_redis(
    fresh_database: Database, require_service: RequireService
) -> None:
    """The same, by changing BROKER_URL alone, and all of the published sets where they are."""
    require_service(redis_program(), "redis-server is not installed (apt install redis-server)")
    options, tests = ((f"--data={DATA}",), "2,136") if DATA.is_dir() else ((), "250")
    with new_redis() as url:
        output = _run(fresh_database, *options, broker=url)
    assert f"{tests} tests" in output
    assert "broker redis: as served" in output


def test_wrong_count_is_noticed(fresh_database: Database) -> None:
    """The mutation: a worker that may not call the application files errors, which is told."""
    with pytest.raises(AssertionError, match="instead of"):
        _run(fresh_database, "--limit=20", "--no-access")


def test_broker_that_does_not_answer_is_one_line(fresh_database: Database) -> None:
    """It ends before anything is migrated, with one line that names the broker."""
    answer = _answer(fresh_database, broker="redis://localhost:1/0", timeout=60)
    assert answer.returncode == 1
    assert answer.stderr.startswith("error: the broker redis://")
    assert answer.stderr.count("\n") == 1


def test_termination_leaves_nothing_behind(tmp_path: Path, require_service: RequireService) -> None:
    """TERM to `make demo-tasks` ends worker and server, and takes their folders away."""
    make, ps = shutil.which("make"), shutil.which("ps")
    require_service(make and ps, "make or ps is not installed (apt install make procps)")
    assert make is not None
    assert ps is not None

    def workers() -> list[str]:
        listed = subprocess.run(
            [ps, "-eww", "-o", "args"], capture_output=True, text=True, check=True
        )
        return [line for line in listed.stdout.splitlines() if str(tmp_path) in line]

    process = subprocess.Popen(
        [make, "-o", "setup", "demo-tasks", f"BIN={Path(sys.executable).parent}", "DATA="],
        cwd=ROOT,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_until(lambda: process.poll() is not None or bool(workers()), 90, lambda: "no worker")
        (home,) = (path for path in tmp_path.iterdir() if not path.name.startswith("assay-"))
        server = EmbeddedServer(home).status()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=90)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert workers() == []
    assert server.pid is not None
    state = subprocess.run(
        [ps, "-o", "stat=", "-p", str(server.pid)], capture_output=True, text=True, check=False
    )
    # One that has ended and waits for its parent counts as gone.
    assert state.stdout.strip()[:1] in {"", "Z"}
    assert list(tmp_path.iterdir()) == []


def _run(database: Database, *options: str, broker: str | None = None) -> str:
    answer = _answer(database, "--patience=230", *options, broker=broker, timeout=250)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr


def _answer(
    database: Database, *options: str, broker: str | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    environ = environment(lambda login: database.server.url(login, database.name), broker=broker)
    # The demonstration allows its own server to its own worker.
    del environ["ASSAY_HTTP_HOSTS"], environ["ASSAY_ALLOWED_NETWORKS"]
    return subprocess.run(
        [sys.executable, "-m", "assay.demo_tasks", *options],
        env=environ,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )

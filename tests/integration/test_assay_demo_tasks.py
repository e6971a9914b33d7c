"""The real run: two organizations, a real worker with four processes, an application that errs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import RequireService
from tests.fixtures.assay_workers import ROOT, environment
from tests.fixtures.redis_servers import new_redis, redis_program

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


def _run(database: Database, *options: str, broker: str | None = None) -> str:
    environ = environment(lambda login: database.server.url(login, database.name), broker=broker)
    # The demonstration allows its own server to its own worker.
    del environ["ASSAY_HTTP_HOSTS"], environ["ASSAY_ALLOWED_NETWORKS"]
    answer = subprocess.run(
        [sys.executable, "-m", "assay.demo_tasks", "--patience=230", *options],
        env=environ,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return answer.stdout + answer.stderr

"""The API while a part that it needs is gone: it says which, loses nothing, and recovers."""

import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.conftest import RequireService
from tests.fixtures.api_site import Site, new_site, serving, site_environment
from tests.fixtures.assay_workers import wait_for
from tests.fixtures.redis_servers import accepts, redis_program
from tests.fixtures.worlds import cursor_of

from tenantry.testing import Database

WANTED = "redis-server is not installed (apt install redis-server)"


class Redis:
    """A Redis on a socket of its own that can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        """Keep the folder of its socket."""
        self._folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        self.path = folder / "socket"

    def start(self) -> None:
        """Start it, and wait until it listens."""
        program = redis_program()
        assert program is not None
        self.process = subprocess.Popen(
            [program, "--port", "0", "--unixsocket", str(self.path), "--save", ""],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        wait_for(lambda: accepts(self.path), seconds=90)

    def kill(self) -> None:
        """Kill it, as a crash does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.path.unlink(missing_ok=True)


@pytest.fixture
def redis(require_service: RequireService) -> Iterator[Redis]:
    """Return a running Redis."""
    require_service(redis_program(), WANTED)
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = Redis(Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def without_connections(database: Database) -> Iterator[None]:
    """Let nobody connect to the database, and end the connections that there are."""
    with cursor_of(database.server.url("superuser", "postgres")) as cursor:
        name = f'"{database.name}"'
        cursor.execute(f"alter database {name} with allow_connections false")
        cursor.execute(
            "select pg_terminate_backend(pid, 60000) from pg_stat_activity where datname = %s",
            [database.name],
        )
        try:
            yield
        finally:
            cursor.execute(f"alter database {name} with allow_connections true")


def readiness(site: Site) -> tuple[int, dict[str, object]]:
    """Return the status and the parts of /readyz."""
    response = site.http.get("/readyz")
    return response.status_code, response.json()


def test_ready_names_the_part_that_is_gone(
    fresh_database: Database, redis: Redis, tmp_path: Path
) -> None:
    """With Redis as the broker: each of broker and database is named, and both come back."""
    well = {"ready": True, "database": "ok", "broker": "ok", "isolation": "database"}
    broker = f"redis+socket://{redis.path}"
    with new_site(fresh_database, tmp_path, BROKER_URL=broker) as site:
        assert readiness(site) == (200, well)
        redis.kill()
        assert readiness(site) == (503, well | {"ready": False, "broker": "unavailable"})
        assert site.http.get("/healthz").status_code == 200
        redis.start()
        assert readiness(site) == (200, well)
        with without_connections(fresh_database):
            gone = {"ready": False, "database": "unavailable", "isolation": "unknown"}
            assert readiness(site) == (503, well | gone)
            answer = site.http.get("/test_sets", headers=site.first.headers)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["content-type"] == "application/problem+json"
            assert fresh_database.name not in answer.text
        assert readiness(site) == (200, well)
        assert site.http.get("/test_sets", headers=site.first.headers).status_code == 200
        # A connection of before a restart is not taken for the database.
        with without_connections(fresh_database):
            pass
        assert readiness(site) == (200, well)


def test_ready_names_a_postgresql_broker(fresh_database: Database, tmp_path: Path) -> None:
    """Where PostgreSQL is the broker, both are gone with the database."""
    with new_site(fresh_database, tmp_path) as site:
        with without_connections(fresh_database):
            status, parts = readiness(site)
            assert (status, parts["database"], parts["broker"]) == (503, *["unavailable"] * 2)
        assert readiness(site)[0] == 200


def test_run_is_launched_while_the_broker_is_gone(
    fresh_database: Database, redis: Redis, tmp_path: Path
) -> None:
    """What the record holds is sent later: the client gets its task, which stays queued."""
    with new_site(fresh_database, tmp_path, BROKER_URL=f"redis+socket://{redis.path}") as site:
        redis.kill()
        path = f"/test_configurations/{site.first.ids['configuration_id']}/execute"
        launched = site.http.post(path, headers=site.first.headers)
        assert launched.status_code == 202
        task = site.http.get(f"/tasks/{launched.json()['task_id']}", headers=site.first.headers)
        assert (task.status_code, task.json()["status"]) == (200, "queued")


def test_result_that_cannot_be_fetched_is_told(
    fresh_database: Database, redis: Redis, tmp_path: Path
) -> None:
    """A store of results that is gone is a 503, for a task that succeeded; others are shown."""
    store = f"redis+socket://{redis.path}"
    with new_site(fresh_database, tmp_path, CELERY_RESULT_BACKEND=store) as site:
        path = f"/tasks/{site.first.ids['task_id']}"
        redis.kill()
        assert site.http.get(path, headers=site.first.headers).json()["status"] == "queued"
        with cursor_of(fresh_database.superuser_url) as cursor:
            cursor.execute("update task_records set state = 'success', finished_at = now()")
        answer = site.http.get(path, headers=site.first.headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["content-type"] == "application/problem+json"
        redis.start()
        assert site.http.get(path, headers=site.first.headers).json()["status"] == "started"
        # Before the record is known to be the organization's, the store is not even asked.
        redis.kill()
        assert site.http.get(path, headers=site.second.headers).status_code == 404


def test_redis_that_never_answers_ends_no_service(fresh_database: Database, tmp_path: Path) -> None:
    """A store that accepts and is silent keeps nobody for ever: tasks stay queued, results wait."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        settings = {"BROKER_URL": url, "CELERY_RESULT_BACKEND": url}
        with (
            new_site(fresh_database, tmp_path, **settings) as site,
            cursor_of(fresh_database.superuser_url) as cursor,
            ThreadPoolExecutor(3) as pool,
        ):
            cursor.execute("update task_records set state = 'success', finished_at = now()")
            ids, headers = site.first.ids, site.first.headers
            asked = (
                ("POST", f"/test_configurations/{ids['configuration_id']}/execute", 202),
                ("GET", f"/tasks/{ids['task_id']}", 503),
                ("GET", "/readyz", 503),
            )

            def ask(method: str, path: str) -> int:
                return site.http.request(method, path, headers=headers, timeout=60).status_code

            answers = [pool.submit(ask, method, path) for method, path, _ in asked]
            assert [answer.result() for answer in answers] == [status for *_, status in asked]


def test_processes_count_together_in_redis(
    tenantry_database: Database, redis: Redis, tmp_path: Path
) -> None:
    """Two processes share what an address may fail; without Redis they refuse, and do not guess."""
    settings = {
        "ASSAY_FAILED_LOGINS": "4/day",
        "ASSAY_LIMITS_STORAGE": f"redis+unix://{redis.path}",
    }
    environ = site_environment(tenantry_database, **settings)
    wrong = {"Authorization": f"Bearer assay_{uuid.uuid4().hex}"}
    with (
        new_site(tenantry_database, tmp_path, **settings) as site,
        serving(environ, tmp_path) as other,
    ):
        asked = [
            http.get("/test_sets", headers=wrong).status_code
            for http in (site.http, other, site.http, other, site.http, other)
        ]
        assert asked == [401, 401, 401, 401, 429, 429]
        redis.kill()
        answer = other.get("/test_sets", headers=site.first.headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["title"] == "Service Unavailable"
        assert "redis" not in answer.text.lower()
        # Counted anew, for what was in memory is gone.
        redis.start()
        assert other.get("/test_sets", headers=site.first.headers).status_code == 200

"""PostgreSQL as broker: each message once, none left behind, one error before the migrations."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from queue import Empty
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery, signals
from celery.contrib.testing.worker import start_worker
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from tests.conftest import RequireService
from tests.fixtures.assay_workers import ROOT, environment
from tests.fixtures.recorded_site import Site, new_site
from tests.fixtures.redis_servers import redis_program
from tests.fixtures.task_board import new_label
from tests.fixtures.worlds import cursor_of

from tenantry import MissingMigrationsError
from tenantry.celery import install_tenancy
from tenantry.testing import Server


@pytest.fixture(scope="module")
def site(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site without a worker."""
    with new_site(tenantry_server, tenantry_template) as made:
        yield made


def text(url: URL) -> str:
    """Return the URL with its password."""
    return url.render_as_string(hide_password=False)


def rows(site: Site) -> int:
    """Return how many rows the table of messages has, seen or not."""
    with cursor_of(site.broker) as cursor:
        cursor.execute("select count(*) from kombu_message")
        return int(cursor.fetchone()[0])


def test_message_that_was_executed_leaves_no_row(site: Site) -> None:
    """The table holds what waits, and does not grow with what was done."""
    results = [site.launch("mark", new_label()) for _ in range(5)]
    assert rows(site) == 5
    with site.worker():
        for result in results:
            result.get(timeout=90)
    assert rows(site) == 0


def test_each_message_is_handed_out_once(site: Site) -> None:
    """Four readers at once share 200 messages between them, in the order of their queue."""
    sent = list(range(200))
    with site.app.connection_for_write() as connection:
        queue = connection.SimpleQueue("shared")
        for number in sent:
            queue.put({"number": number})
    start, taken = threading.Barrier(4), []

    def read() -> None:
        with site.app.connection_for_read() as connection:
            channel = connection.channel()
            start.wait()
            own: list[Any] = []
            try:
                while True:
                    own.append(channel.message_to_python(channel._get("shared")).decode())
            except Empty:
                taken.append([each["number"] for each in own])

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(number for own in taken for number in own) == sent
    assert all(own == sorted(own) for own in taken)
    assert rows(site) == 0


def test_publisher_is_told_of_the_migrations(tenantry_server: Server) -> None:
    """Where the broker's schema is missing, the error names the command that makes it."""
    empty = tenantry_server.create_database()
    url = text(tenantry_server.url("courier", empty.name))
    app = Celery("early", set_as_current=False, broker=f"sqla+{url}", backend="rpc://")
    install_tenancy(app, key="k" * 32)
    try:
        with pytest.raises(MissingMigrationsError, match="alembic upgrade head"):
            app.send_task("anything")
    finally:
        app.close()
        empty.drop()


def test_worker_is_told_of_the_migrations(tenantry_server: Server) -> None:
    """A worker that is started too early ends, and its last words name the command."""
    empty = tenantry_server.create_database()
    environ = environment(lambda login: tenantry_server.url(login, empty.name))
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "celery", "--app", "assay.worker", "worker", "--pool=solo"],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        empty.drop()
    assert ended.returncode != 0
    told = ended.stdout + ended.stderr
    assert "MissingMigrationsError" in told
    assert "alembic upgrade head" in told


def test_publisher_does_not_wait_long_for_results_that_are_down(
    site: Site, require_service: RequireService
) -> None:
    """The default is two seconds for a publisher, and Celery's own patience for a worker."""
    require_service(redis_program(), "redis-server is not installed (apt install redis-server)")
    app = Celery("brisk", set_as_current=False, broker="memory://", backend="redis://127.0.0.1:1")
    install_tenancy(app, key="k" * 32)
    try:
        assert app.backend.retry_policy["timeout"] == 2.0
        with pytest.raises(RuntimeError, match="Retry limit exceeded"):
            app.send_task("anything")
        signals.celeryd_init.send("worker", instance=SimpleNamespace(app=app), conf=app.conf)
        assert app.conf.result_backend_transport_options == {}
    finally:
        app.close()


def test_worker_opens_no_session_before_a_task_does() -> None:
    """Starting one makes no engine: the default's would start a server that nobody asked for."""
    opened: list[Session] = []

    def sessions() -> Session:
        opened.append(Session())
        return opened[-1]

    app = Celery("idle", set_as_current=False, broker="memory://", backend="cache+memory://")
    install_tenancy(app, key="k" * 32, sessions=sessions)
    try:
        with start_worker(app, perform_ping_check=False, shutdown_timeout=60):
            pass
    finally:
        app.close()
    assert opened == []

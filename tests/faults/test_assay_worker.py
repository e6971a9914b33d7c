"""What a worker meets in the middle of a run: each time every test ends with one result."""

import os
import signal
import socket
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import URL, Engine, select
from sqlalchemy.orm import sessionmaker
from tests.fixtures.assay_workers import (
    Party,
    Unhurried,
    create_party,
    environment,
    some_questions,
    wait_for,
    working,
)

from assay.demo_server import Application, planned, serving
from assay.models import Base, RunStatus, TestResult, Verdict
from tenantry import create_tenant_engine, tenant_scope
from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer
from tenantry.testing import Database

Parties = Callable[..., Party]


@pytest.fixture
def application() -> Iterator[tuple[Application, str]]:
    """Return an application under test that answers as planned, and its base URL."""
    application = Unhurried(slowness=6)
    application.pause = 0.2
    with serving(application) as url:
        yield application, url


@pytest.fixture
def parties(fresh_database: Database, tmp_path: Path) -> Iterator[Parties]:
    """Return what makes organizations in a database that is also the broker."""
    engine = create_tenant_engine(fresh_database.app_url, mode="database", metadata=Base.metadata)

    def create(url: str, number: int, *, timeout_seconds: int = 4, **settings: str) -> Party:
        environ = environment(
            lambda login: fresh_database.server.url(login, fresh_database.name), **settings
        )
        return create_party(
            engine,
            environ,
            url,
            some_questions(number),
            tmp_path,
            timeout_seconds=timeout_seconds,
        )

    yield create
    engine.dispose()


def test_every_test_has_one_result_after_the_worker_was_killed(
    application: tuple[Application, str], parties: Parties, tmp_path: Path
) -> None:
    """SIGKILL loses the messages a worker holds; the sweep of the next one sends them again."""
    party = _taught(application, parties, 80)
    task = party.launch()
    with working(party.environ, tmp_path) as worker:
        party.await_results(task, 10, seconds=90)
        worker.kill()
    assert party.state(task)[0] is RunStatus.RUNNING
    with working(party.environ, tmp_path) as worker:
        party.await_results(task, 30, seconds=90)
        worker.kill()
    with working(party.environ, tmp_path):
        party.await_end(task, seconds=90)
    _check(party, task)


def test_every_test_has_one_result_after_a_child_was_killed(
    application: tuple[Application, str], parties: Parties, tmp_path: Path
) -> None:
    """A process of the pool that vanishes costs time: its task's, or the whole worker's.

    If it held the lock of the pool's queue, the worker ends itself; the test starts the next one,
    as a supervisor does.
    """
    party = _taught(application, parties, 60)
    task = party.launch()
    with working(party.environ, tmp_path) as worker:
        party.await_results(task, 5, seconds=90)
        for child in _children(worker.process.pid)[:2]:
            os.kill(child, signal.SIGKILL)
        wait_for(lambda: party.has_ended(task) or worker.process.poll() is not None, seconds=90)
    with working(party.environ, tmp_path):
        party.await_end(task, seconds=90)
    _check(party, task)


def test_worker_whose_pool_is_stuck_ends(
    application: tuple[Application, str], parties: Parties, tmp_path: Path
) -> None:
    """A pool that takes nothing, though there is something to take, is not waited for for ever."""
    party = _taught(application, parties, 20)
    first = party.launch()
    with working(party.environ, tmp_path) as worker:
        party.await_end(first, seconds=90)
        # Asleep while they wait for work: what holds the lock then is as good as dead.
        for child in _children(worker.process.pid):
            os.kill(child, signal.SIGSTOP)
        task = party.launch()
        assert worker.process.wait(timeout=90) != 0
    assert "this worker ends" in worker.log.read_text()
    with working(party.environ, tmp_path):
        party.await_end(task, seconds=90)
    _check(party, task)


def test_run_survives_a_restart_of_the_database(
    application: tuple[Application, str],
    alembic_config: Callable[[URL, URL], Config],
    tmp_path: Path,
) -> None:
    """Data and broker are gone for seconds: what was under way is done again, once."""
    home = tempfile.TemporaryDirectory(prefix="tenantry-")
    server = EmbeddedServer(Path(home.name) / "server", durable=False)
    engine: Engine | None = None
    try:
        server.start()
        owner, app = server.url("owner"), server.url("app")
        command.upgrade(alembic_config(owner, app), "head")
        engine = create_tenant_engine(app, mode="database", metadata=Base.metadata)
        environ = environment(server.url)
        service, url = application
        party = create_party(engine, environ, f"{url}/party", some_questions(80), tmp_path)
        service.learn("/party", party.questions)
        task = party.launch()
        with working(party.environ, tmp_path):
            party.await_results(task, 10, seconds=90)
            server.stop()
            server.start()
            engine.dispose()
            party.await_end(task, seconds=90)
        _check(party, task)
    finally:
        if engine is not None:
            engine.dispose()
        server.reset()
        home.cleanup()


def test_endpoint_that_is_down_fails_the_run(parties: Parties, tmp_path: Path) -> None:
    """Nobody listens: every test is an error that says so, and the run has failed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    party = parties(f"http://127.0.0.1:{port}/", 6)
    task = party.launch()
    with working(party.environ, tmp_path):
        assert party.await_end(task, seconds=90) is RunStatus.FAILED
    assert party.state(task)[1] == Counter({Verdict.ERROR: 6})
    assert all("cannot be asked" in str(error) for error in _errors(party))


def test_endpoint_that_never_answers_does_not_hold_the_run(
    parties: Parties, tmp_path: Path
) -> None:
    """It accepts and says nothing: each test is over when its time is."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        party = parties(f"http://127.0.0.1:{listener.getsockname()[1]}/", 6, timeout_seconds=1)
        task = party.launch()
        with working(party.environ, tmp_path):
            assert party.await_end(task, seconds=90) is RunStatus.FAILED
    assert all("within 1 s" in str(error) for error in _errors(party))


def test_task_that_outlives_its_limit_is_filed_as_an_error(
    parties: Parties, tmp_path: Path
) -> None:
    """A member that never ends is stopped and filed: the run is not held."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        party = parties(
            f"http://127.0.0.1:{listener.getsockname()[1]}/",
            2,
            timeout_seconds=600,
            ASSAY_TASK_TIME_LIMIT="4",
        )
        task = party.launch()
        with working(party.environ, tmp_path):
            assert party.await_end(task, seconds=90) is RunStatus.FAILED
    assert all("TimeLimit" in str(error) for error in _errors(party))


@pytest.mark.parametrize("payload", ["no JSON {", '{"body": "bm8gSlNPTg==", "headers": {}}'])
def test_poison_in_the_queue_does_not_stop_the_worker(
    payload: str,
    application: tuple[Application, str],
    parties: Parties,
    fresh_database: Database,
    tmp_path: Path,
) -> None:
    """A message that is not JSON is put aside, and the run behind it comes to its end."""
    party = _taught(application, parties, 10)
    party.launch("assay.tasks.diagnostics.echo", "the first message makes the tables")
    courier = fresh_database.server.url("courier", fresh_database.name)
    with (
        closing(psycopg2.connect(libpq_url(courier))) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(
            "insert into kombu_message (id, visible, timestamp, payload, version, queue_id) "
            "select nextval('message_id_sequence'), true, now(), %s, 1, id from kombu_queue "
            "where name = 'celery'",
            (payload,),
        )
    task = party.launch()
    with working(party.environ, tmp_path):
        party.await_end(task, seconds=90)
    _check(party, task)


def _taught(application: tuple[Application, str], parties: Parties, number: int) -> Party:
    service, url = application
    party = parties(f"{url}/party", number)
    service.learn("/party", party.questions)
    return party


def _check(party: Party, task: object) -> None:
    status, verdicts, distinct = party.state(task)  # type: ignore[arg-type]
    assert verdicts == planned(party.questions)
    assert distinct == verdicts.total() == len(party.questions)
    assert status in {RunStatus.PARTIAL, RunStatus.COMPLETED}


def _errors(party: Party) -> list[str | None]:
    with tenant_scope(party.organization, sessions=sessionmaker(party.engine)) as session:
        return list(session.scalars(select(TestResult.error)))


def _children(pid: int) -> list[int]:
    """Return the worker's processes that execute tasks; its beat is a child like them.

    Celery starts the beat before the pool or after it, in no fixed order. Its pool ignores SIGINT.
    """
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    pool: list[int] = []

    def is_complete() -> bool:
        pool[:] = [int(child) for child in listed.read_text().split() if _ignores_sigint(child)]
        return len(pool) == 4

    wait_for(is_complete, seconds=90)
    return pool


def _ignores_sigint(pid: str) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) & 1 << (signal.SIGINT - 1))

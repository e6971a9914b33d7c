"""Assay's tasks as the worker runs them: for their tenant, launched from another process."""

import json
import re
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from celery import Celery
from sqlalchemy import create_engine, text
from tests.fixtures.assay_workers import (
    ROOT,
    Party,
    create_party,
    environment,
    some_questions,
    wait_for,
    working,
)
from tests.fixtures.ports import free_port

from assay.demo_server import Application, serving
from assay.models import Base
from assay.observation import observe
from tenantry import ConfigurationError, create_tenant_engine
from tenantry.testing import Database, Server


@dataclass(frozen=True)
class Bench:
    """A worker, two organizations, and the results that Celery keeps."""

    first: Party
    second: Party
    results: Database
    log: Path
    metrics: str
    flower: str

    def result(self, task: uuid.UUID) -> tuple[str, object]:
        """Return a task's state and result, once it has ended."""
        engine = create_engine(self.results.server.url("courier", self.results.name))
        query = text(
            "select status, convert_from(result, 'UTF8') from celery_taskmeta where task_id = :id"
        )
        found: list[tuple[str, str]] = []

        def ended() -> bool:
            with engine.connect() as connection:
                # The first result makes the table.
                if connection.scalar(text("select to_regclass('celery_taskmeta')")) is None:
                    return False
                rows = connection.execute(query, {"id": str(task)}).all()
            found[:] = [(row[0], row[1]) for row in rows if row[0] in {"SUCCESS", "FAILURE"}]
            return bool(found)

        wait_for(ended, seconds=90)
        engine.dispose()
        state, result = found[0]
        return state, json.loads(result)


@pytest.fixture(scope="module")
def bench(
    tenantry_server: Server, tenantry_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Return a running worker for two organizations that have one set of tests each."""
    folder = tmp_path_factory.mktemp("tasks")
    database = tenantry_server.create_database(template=tenantry_template)
    port, flower = free_port(), free_port()
    environ = environment(
        lambda login: tenantry_server.url(login, database.name),
        CELERY_WORKER_LOG_FORMAT="json",
        CELERY_WORKER_METRICS_PORT=str(port),
        ENABLE_FLOWER="yes",
        FLOWER_PORT=str(flower),
    )
    engine = create_tenant_engine(database.app_url, mode="database", metadata=Base.metadata)
    with serving(Application(slowness=0)) as url, working(environ, folder) as worker:
        first = create_party(engine, environ, url, some_questions(3), folder, name="first")
        second = create_party(engine, environ, url, some_questions(2), folder, name="second")
        yield Bench(
            first,
            second,
            database,
            worker.log,
            f"http://127.0.0.1:{port}/metrics",
            f"http://127.0.0.1:{flower}/",
        )
    engine.dispose()
    database.drop()


def test_echo_names_the_tenant_it_runs_for(bench: Bench) -> None:
    """The tenant comes from the launcher's principal."""
    task = bench.first.launch("assay.tasks.diagnostics.echo", "hello")
    expected = {
        "message": "hello",
        "organization_id": str(bench.first.organization),
        "user_id": None,
    }
    assert bench.result(task) == ("SUCCESS", expected)


def test_sets_are_counted_for_the_tenant_alone(bench: Bench) -> None:
    """Each of two organizations in one table sees its own set."""
    for party in (bench.first, bench.second):
        task = party.launch("assay.tasks.test_set.count_test_sets")
        assert bench.result(task) == ("SUCCESS", {"test_sets": 1})


def test_two_sessions_of_a_task_have_the_same_tenant(bench: Bench) -> None:
    """A task that opens its Sessions itself is in its tenant in each of them."""
    task = bench.first.launch("assay.tasks.diagnostics.manual_db_example")
    expected = {"before": 1, "after": 1, "tenant": str(bench.first.organization)}
    assert bench.result(task) == ("SUCCESS", expected)


def test_configuration_is_described_to_its_organization(bench: Bench) -> None:
    """A configuration comes with its set, its endpoint and the number of tests."""
    name = "assay.tasks.test_configuration.get_test_configuration"
    state, found = bench.result(bench.first.launch(name, str(bench.first.configuration)))
    assert state == "SUCCESS"
    assert isinstance(found, dict)
    assert found["id"] == str(bench.first.configuration)
    assert found["tests"] == 3


def test_configuration_of_another_organization_is_unknown(bench: Bench) -> None:
    """Another organization's id is an error like one that does not exist, and is not retried."""
    name = "assay.tasks.test_configuration.get_test_configuration"
    state, error = bench.result(bench.second.launch(name, str(bench.first.configuration)))
    assert state == "FAILURE"
    assert isinstance(error, dict)
    assert error["exc_type"] == "UnknownConfigurationError"


def test_run_of_another_organizations_configuration_fails(bench: Bench) -> None:
    """Nothing is asked and nothing is filed: the run of the second has failed with a reason."""
    name = "assay.tasks.test_configuration.execute_test_configuration"
    task = bench.second.launch(name, str(bench.first.configuration))
    assert bench.second.await_end(task, seconds=90) == "failed"
    assert bench.second.state(task)[1].total() == 0
    assert bench.first.state(task)[0] is None


def test_log_says_of_each_task_whose_it_is(bench: Bench) -> None:
    """CELERY_WORKER_LOG_FORMAT=json: lines of JSON with task, organization and user."""
    task = bench.first.launch("assay.tasks.diagnostics.echo", "hello")
    bench.result(task)

    def told() -> list[dict[str, object]]:
        lines = [json.loads(line) for line in bench.log.read_text().splitlines() if line[:1] == "{"]
        return [
            line
            for line in lines
            if line["task_id"] == str(task) and "succeeded" in line["message"]
        ]

    wait_for(lambda: bool(told()), seconds=90)
    [line] = told()
    assert line["organization_id"] == str(bench.first.organization)
    assert (line["task_name"], line["user_id"]) == ("assay.tasks.diagnostics.echo", None)


def read(url: str) -> str:
    """Return what is served there; nothing while nobody listens yet."""
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - its own worker
            return str(answer.read().decode())
    except OSError:
        return ""


def test_worker_answers_prometheus(bench: Bench) -> None:
    """CELERY_WORKER_METRICS_PORT: what the pool's processes executed is counted, for no tenant."""

    def executed() -> int:
        pattern = r'tenantry_tasks_total\{outcome="success",task="assay.tasks.test_set.+"\} (\d+)'
        return sum(map(int, re.findall(pattern, read(bench.metrics))))

    wait_for(lambda: read(bench.metrics) != "", seconds=90)
    before = executed()
    bench.result(bench.second.launch("assay.tasks.test_set.count_test_sets"))
    wait_for(lambda: executed() > before, seconds=90)
    assert str(bench.second.organization) not in read(bench.metrics)


def test_flower_runs_beside_the_worker(bench: Bench) -> None:
    """ENABLE_FLOWER=yes: its pages are served while the worker works."""
    wait_for(lambda: "Flower" in read(bench.flower), seconds=90)
    assert bench.result(bench.first.launch("assay.tasks.diagnostics.echo", "hello"))


@pytest.mark.parametrize(
    "environ",
    [
        {"CELERY_WORKER_LOG_FORMAT": "xml"},
        {"CELERY_WORKER_METRICS_PORT": "http"},
        {"CELERY_WORKER_METRICS_PORT": "70000"},
    ],
)
def test_malformed_observation_is_refused(environ: dict[str, str]) -> None:
    """A value that cannot be meant is an error that names its variable."""
    with closing(Celery("observed", set_as_current=False)) as app:
        [name] = environ
        with pytest.raises(ConfigurationError, match=name):
            observe(app, environ)


def test_worker_script_passes_the_environment_on(tmp_path: Path) -> None:
    """The script's defaults and what replaces them reach Celery, whose process it becomes."""
    celery = tmp_path / "celery"
    celery.write_text('#!/bin/sh\necho "$$ $*"\n')
    celery.chmod(0o755)
    process = subprocess.Popen(
        ["/bin/sh", str(ROOT / "docker" / "worker.sh"), "--hostname=a"],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "CELERY_WORKER_CONCURRENCY": "2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    output, _ = process.communicate(timeout=60)
    assert output.split() == [
        str(process.pid),
        *("--app", "assay.worker", "worker", "--queues=celery,maintenance"),
        *("--concurrency=2", "--prefetch-multiplier=4"),
        *("--max-tasks-per-child=1000", "--loglevel=INFO"),
        *("--without-heartbeat", "--without-gossip", "--hostname=a"),
    ]

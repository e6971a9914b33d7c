"""A worker counts its tasks by name and outcome, and tells nobody of tenants."""

import re
import struct
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from tests.fixtures.ports import free_port
from tests.fixtures.task_board import new_label, wait_until
from tests.fixtures.task_messages import Message
from tests.fixtures.task_workers import POOLS, Bench, Pool, new_bench
from tests.fixtures.worlds import TENANTS, new_world

from tenantry.celery.metrics import ChildrenCollector
from tenantry.testing import Server


def read_metrics(port: int) -> str:
    """Return what Prometheus would be answered."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        return str(answer.read().decode())


def outcomes(text: str) -> dict[tuple[str, str], int]:
    """Return the counters by task and outcome."""
    pattern = r'tenantry_tasks_total\{outcome="(\w+)",task="([\w.]+)"\} (\d+)'
    return {(task, outcome): int(n) for outcome, task, n in re.findall(pattern, text)}


def publish_outcomes(bench: Bench) -> dict[tuple[str, str], int]:
    """Publish tasks of two tenants that end in every way, and return what is to be counted."""
    for letter in "ab":
        for name in ("look", "look", "fail", "retry"):
            bench.publish(letter, bench.sig(name, new_label()))
        bench.publish(letter, bench.sig("look", new_label(), expires="2020-01-01T00:00:00+00:00"))
        Message("look", {"label": new_label()}).seal(letter, key="o" * 32).send(bench)
    return {
        ("look", "success"): 4,
        ("fail", "failure"): 2,
        ("retry", "retry"): 2,
        ("retry", "success"): 2,
        ("look", "revoked"): 2,
        ("look", "refused"): 2,
    }


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_are_counted_in_every_pool(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path, pool: Pool
) -> None:
    """Success, failure, retry, revocation and refusal are counted once, in children and threads."""
    port = free_port()
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").write_bytes(b"of a worker before this one")
    environment = {"PROBES_METRICS": str(port)}
    if pool == "prefork":
        environment["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    with (
        new_world(tenantry_server, tenantry_template) as world,
        new_bench(
            world,
            tenantry_server,
            tmp_path,
            pool=pool,
            environment=environment,
            worker_max_tasks_per_child=5,
        ) as bench,
    ):
        expected = publish_outcomes(bench)
        wait_until(
            lambda: expected.items() <= outcomes(read_metrics(port)).items(),
            90,
            lambda: str(outcomes(read_metrics(port))),
        )
        text = read_metrics(port)
    assert {key: n for key, n in outcomes(text).items() if key[0] != "look_free"} == expected
    assert 'tenantry_task_runtime_seconds_count{task="look"} 4.0' in text
    ours = [line for line in text.splitlines() if line.startswith("tenantry_")]
    assert set(re.findall(r'(\w+)="', "".join(ours))) == {"task", "outcome", "le"}
    assert not any(str(tenant) in text for tenant in TENANTS.values())


def test_killed_task_is_counted(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path
) -> None:
    """A task that was killed at its time limit is a failure, though its process cannot say so."""
    port = free_port()
    environment = {"PROBES_METRICS": str(port), "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    with (
        new_world(tenantry_server, tenantry_template) as world,
        new_bench(
            world, tenantry_server, tmp_path, pool="prefork", environment=environment
        ) as bench,
    ):
        bench.publish("a", bench.sig("dawdle", new_label(), time_limit=1))
        wait_until(
            lambda: outcomes(read_metrics(port)).get(("dawdle", "failure")) == 1,
            90,
            bench.log_text,
        )


def test_child_that_is_making_its_file_does_not_fail_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is empty yet, as one is for a moment when a child begins, is read once filled."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    file = tmp_path / "counter_1.db"
    file.touch()
    waited: list[float] = []

    def go_on_making_it(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            # What prometheus_client begins a file with: the number of its bytes in use.
            file.write_bytes(struct.pack("i", 8).ljust(1 << 16, b"\0"))

    monkeypatch.setattr("tenantry.celery.metrics.time.sleep", go_on_making_it)
    registry = CollectorRegistry()
    ChildrenCollector(registry)
    assert list(registry.collect()) == []
    assert len(waited) == 2


def test_prefork_worker_without_a_folder_does_not_start(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path
) -> None:
    """Metrics that would miss every task are not exposed: the worker says what to set, and ends."""
    with (
        new_world(tenantry_server, tenantry_template) as world,
        pytest.raises(AssertionError, match="PROMETHEUS_MULTIPROC_DIR is not set"),
        new_bench(
            world,
            tenantry_server,
            tmp_path,
            pool="prefork",
            environment={"PROBES_METRICS": str(free_port())},
        ),
    ):
        pytest.fail("the worker started")


def test_metrics_are_not_exposed_unless_asked_for(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path
) -> None:
    """Without a port nothing listens."""
    port = free_port()
    with (
        new_world(tenantry_server, tenantry_template) as world,
        new_bench(world, tenantry_server, tmp_path) as bench,
    ):
        bench.settle()
        with pytest.raises(urllib.error.URLError, match="refused"):
            read_metrics(port)

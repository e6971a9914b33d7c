"""What the record makes of workers that are slow, killed, or asked twice."""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.recorded_site import ALICE, Site, new_site
from tests.fixtures.task_board import PATIENCE, new_label, wait_until
from tests.fixtures.worlds import A

from tenantry import Tenant
from tenantry.celery import Deadlines, TaskState, publishing_for, sweep
from tenantry.testing import Server


@pytest.fixture(scope="module")
def site(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site with short leases, without a worker."""
    # Long enough for a busy machine to renew it in time, and what waits for its end waits so long.
    deadlines = Deadlines(lease=timedelta(seconds=5))
    with new_site(tenantry_server, tenantry_template, deadlines=deadlines) as made:
        yield made


def is_over(site: Site, result: Any) -> bool:
    """Tell whether the lease of a task has run out."""
    record = site.record(result)
    assert record is not None
    assert record.due_at is not None
    return record.due_at < datetime.now(UTC)


def test_running_task_is_not_started_a_second_time(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy of the message waits while the lease lasts, and finds the task finished then."""
    label, over = new_label(), tmp_path / "over"
    with site.worker(pool="threads", concurrency=2):
        result = site.launch("linger", label, str(over))
        site.wait(result, TaskState.STARTED)
        with publishing_for(Tenant(A, ALICE.id)):
            site.app.tasks["linger"].apply_async((label, str(over)), task_id=result.id)
        wait_until(lambda: "put off for" in caplog.text, PATIENCE, lambda: caplog.text)
        over.touch()
        wait_until(lambda: "after its end" in caplog.text, PATIENCE, lambda: caplog.text)
        assert site.count(label) == 1


def test_lease_is_renewed_while_a_task_runs(site: Site, tmp_path: Path) -> None:
    """A task may run longer than its lease: its process pushes the end of it further."""
    over = tmp_path / "over"
    with site.worker():
        result = site.launch("linger", new_label(), str(over))
        first = site.wait(result, TaskState.STARTED).due_at
        assert first is not None

        def renewed() -> bool:
            record = site.record(result)
            return record is not None and record.due_at is not None and record.due_at > first

        wait_until(renewed, PATIENCE, lambda: "the lease was not renewed")
        over.touch()
        result.get(timeout=PATIENCE)


def test_hard_time_limit_is_recorded(site: Site, tmp_path: Path) -> None:
    """The worker's main process records what the killed process cannot."""
    with site.worker_process(tmp_path, task_time_limit=2):
        result = site.launch("linger", new_label(), str(tmp_path / "never"))
        record = site.wait(result, TaskState.FAILURE)
    assert record.error == "TimeLimitExceeded: 2 s"


def test_process_that_dies_is_recorded(site: Site, tmp_path: Path) -> None:
    """A pool process that is killed in mid-task fails its task; the others go on."""
    with site.worker_process(tmp_path, worker_lost_wait=0.5):
        result = site.launch("vanish")
        record = site.wait(result, TaskState.FAILURE)
        assert record.error is not None
        assert record.error.startswith("WorkerLostError: ")
        label = new_label()
        assert site.launch("mark", label).get(timeout=PATIENCE) == label


def test_worker_that_is_killed_leaves_nothing_undone(site: Site, tmp_path: Path) -> None:
    """What ran, and what was fetched and not begun, is run by another worker after a sweep."""
    labels, over = [new_label() for _ in range(6)], tmp_path / "over"
    with site.worker_process(tmp_path, concurrency=1, lease=1.5) as killed:
        running = site.launch("linger_late", labels[0], str(over))
        waiting = [site.launch("mark_late", label) for label in labels[1:]]
        site.wait(running, TaskState.STARTED)
        wait_until(lambda: site.count(labels[0]) == 1, PATIENCE, lambda: "nothing was begun")
        wait_until(lambda: site.messages() < len(waiting), PATIENCE, lambda: "nothing was fetched")
        os.killpg(killed.process.pid, signal.SIGKILL)
        killed.process.wait(PATIENCE)
    over.touch()
    wait_until(lambda: is_over(site, running), PATIENCE, lambda: "the lease does not end")
    site.change("update task_records set due_at = now() where state = 'dispatched'")
    assert sweep(site.app, engine=site.maintenance).lost == 0
    with site.worker():
        for result in (running, *waiting):
            site.wait(result, TaskState.SUCCESS)
    assert [site.count(label) for label in labels] == [2, 1, 1, 1, 1, 1]

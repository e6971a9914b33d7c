"""`tenantry tasks …` on Redis, whose workers can be asked, and told to end a task."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import RequireService
from tests.fixtures.recorded_site import BOB, Site, WorkerProcess, new_site
from tests.fixtures.redis_servers import new_redis, redis_program
from tests.fixtures.task_board import PATIENCE, new_label, wait_until
from tests.fixtures.tasks_command import Tasks, tasks_command
from tests.fixtures.worlds import A, B

from tenantry.celery import TaskState
from tenantry.celery.control import Reach, locate, revoke
from tenantry.testing import Server

MINE = ("--organization", str(A))
APP = ("--app", "tests.fixtures.recorded_app:app")


@pytest.fixture(scope="module")
def url(require_service: RequireService) -> Iterator[str]:
    """Return the URL of a Redis of this module's own."""
    require_service(redis_program(), "redis-server is not installed (apt install redis-server)")
    with new_redis() as url:
        yield url


@pytest.fixture(scope="module")
def site(url: str, tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site whose broker and results are Redis."""
    with new_site(tenantry_server, tenantry_template, broker_url=url, result_backend=url) as made:
        yield made


@pytest.fixture(scope="module")
def worker(
    url: str, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[WorkerProcess]:
    """Return a prefork worker with two processes."""
    folder = tmp_path_factory.mktemp("worker")
    with site.worker_process(folder, broker_url=url, result_backend=url) as running:
        yield running


@pytest.fixture
def tasks(url: str, site: Site, worker: WorkerProcess) -> Tasks:
    """Return what runs the command on the site's database and Redis."""
    return tasks_command(site, broker_url=url, result_backend=url)


def test_running_task_is_found_and_terminated(
    site: Site, tasks: Tasks, worker: WorkerProcess, tmp_path: Path
) -> None:
    """`show` says on which worker it runs, `revoke --terminate` ends it there, and it stays so."""
    result = site.launch("linger_late", new_label(), str(tmp_path / "never"))
    site.wait(result, TaskState.STARTED)

    def is_found() -> bool:
        # The worker learns a moment after the record that its child has begun.
        shown = json.loads(tasks("show", result.id, *MINE, *APP, "--json"))
        return str(shown.get("found")).startswith("running on celery@")

    wait_until(is_found, PATIENCE, lambda: "the task is not found running")
    assert tasks("revoke", result.id, "--terminate", *MINE, *APP) == f"revoked {result.id}\n"
    assert result.get(timeout=PATIENCE, propagate=False) is not None
    assert result.state == "REVOKED"
    # The processes are free again, and what was ended does not come back.
    for _ in range(4):
        site.launch("mark", new_label()).get(timeout=PATIENCE)
    assert site.wait(result, TaskState.REVOKED).error == "revoked by command"
    assert "found" not in json.loads(tasks("show", result.id, *MINE, *APP, "--json"))
    assert worker.process.poll() is None


def test_other_organizations_task_of_the_same_id_goes_on(
    site: Site, worker: WorkerProcess, tmp_path: Path
) -> None:
    """What is ended and told of is the organization's own task, even if another's has its id."""
    task_id, label, over = uuid.uuid4(), new_label(), tmp_path / "over"
    theirs = site.launch("linger", label, str(over), user=BOB, task_id=task_id)
    site.wait(theirs, TaskState.STARTED, organization_id=B)
    mine = site.record(site.launch("mark", new_label(), task_id=task_id, countdown=3600))
    assert mine is not None
    reach, other = (Reach(organization_id=each, app=site.app) for each in (A, B))
    record = site.record(task_id, B)
    assert record is not None
    wait_until(
        lambda: "running" in locate(other, record).values(), PATIENCE, lambda: "it does not run"
    )
    assert "running" not in locate(reach, mine).values()
    assert revoke(reach, [task_id], terminate=True) == [task_id]
    over.touch()
    assert site.wait(theirs, TaskState.SUCCESS, organization_id=B).error is None
    assert site.count(label, B) == 1


def test_task_that_waits_for_its_time_is_revoked_by_its_record(
    site: Site, worker: WorkerProcess
) -> None:
    """No command goes to the worker that holds it: it asks the record when the time has come."""
    label = new_label()
    result = site.launch("mark", label, countdown=5)
    assert revoke(Reach(organization_id=A, app=site.app), [uuid.UUID(result.id)])
    site.launch("mark", new_label(), countdown=6).get(timeout=PATIENCE)
    assert site.count(label) == 0
    assert site.wait(result, TaskState.REVOKED).error == "revoked by command"


def test_celery_inspects_the_worker(url: str, site: Site, worker: WorkerProcess) -> None:
    """Redis has remote control: `celery inspect` is answered."""
    answer = site.app.control.inspect(timeout=PATIENCE, limit=1).ping()
    assert [list(pong.values()) for pong in answer.values()] == [["pong"]]
    registered = site.app.control.inspect(timeout=PATIENCE, limit=1).registered()
    assert "mark" in next(iter(registered.values()))

"""What the sweeper sees to, and how periodic work reaches every organization."""

import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from sqlalchemy import select
from tests.fixtures.recorded_site import Site, new_site
from tests.fixtures.task_board import new_label
from tests.fixtures.worlds import A, B, cursor_of

from assay.models import TaskRecord
from tenantry import ConfigurationError, tenant_scope
from tenantry.celery import Sweep, TaskState, for_each_tenant, install_tenancy, sweep
from tenantry.testing import Server


@pytest.fixture(scope="module")
def shared(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site without a worker."""
    with new_site(tenantry_server, tenantry_template) as made:
        yield made


@pytest.fixture
def site(shared: Site) -> Site:
    """Return the site with no record and no message."""
    shared.change("delete from task_records")
    if shared.messages():
        shared.empty_broker()
    return shared


def run_out(site: Site, result: Any, **values: Any) -> None:
    """Let a record's deadline pass, and give it other values as well."""
    columns = "".join(f", {name} = %s" for name in values)
    site.change(
        f"update task_records set due_at = now(){columns} where id = %s",
        *values.values(),
        result.id,
    )


def swept(site: Site, **options: Any) -> Sweep:
    """Sweep as the maintenance login."""
    return sweep(site.app, engine=site.maintenance, **options)


def test_nothing_is_due_before_its_deadline(site: Site) -> None:
    """Fresh tasks, wherever they stand, are left alone."""
    site.launch("mark", "x")
    site.launch("mark", "x", countdown=3600)
    assert swept(site) == Sweep(dispatched=0, lost=0)


def test_lost_message_is_sent_again(site: Site) -> None:
    """A broker that forgot its messages gets them once more; the tasks then run once."""
    labels = [new_label(), new_label()]
    first = site.launch("mark", labels[0])
    second = site.launch("mark", labels[1])
    site.empty_broker()
    for result in (first, second):
        run_out(site, result)
    assert swept(site) == Sweep(dispatched=2, lost=0)
    assert swept(site) == Sweep(dispatched=0, lost=0)
    with site.worker():
        for result in (first, second):
            site.wait(result, TaskState.SUCCESS)
    assert [site.count(label) for label in labels] == [1, 1]


def test_task_sent_twice_is_executed_once(site: Site) -> None:
    """A message that was only late arrives beside its copy, and one of the two is dropped."""
    label = new_label()
    result = site.launch("mark", label)
    run_out(site, result)
    assert swept(site).dispatched == 1
    assert site.messages() == 2
    with site.worker():
        site.wait(result, TaskState.SUCCESS)
        site.launch("mark", new_label()).get(timeout=90)
    assert site.count(label) == 1


def test_running_task_whose_worker_vanished_is_lost(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Without acks_late nobody knows whether it may run twice: LOST, and a failed result."""
    result = site.launch("mark", new_label())
    run_out(site, result, state="started", worker="w1")
    assert swept(site) == Sweep(dispatched=0, lost=1)
    record = site.record(result)
    assert record is not None
    assert record.state is TaskState.LOST
    assert record.error == "its worker w1 has vanished, and the task is not declared acks_late"
    assert (record.due_at, record.finished_at is not None) == (None, True)
    assert result.state == "FAILURE"
    assert "is lost: its worker w1 has vanished" in caplog.text


def test_running_task_that_bears_it_is_run_again(site: Site) -> None:
    """An acks_late task whose worker vanished is dispatched again, as its next attempt."""
    label = new_label()
    result = site.launch("mark_late", label)
    site.empty_broker()
    run_out(site, result, state="started", worker="w1")
    assert swept(site) == Sweep(dispatched=1, lost=0)
    with site.worker():
        record = site.wait(result, TaskState.SUCCESS)
    assert record.retries == 1
    assert site.count(label) == 1


def test_task_that_kills_its_workers_is_given_up(site: Site) -> None:
    """Its retries bound how often a task is dispatched after the loss of a worker."""
    result = site.launch("mark_late", new_label())
    run_out(site, result, state="started", worker="w1", retries=3)
    assert swept(site) == Sweep(dispatched=0, lost=1)


def test_task_that_nobody_knows_is_lost(site: Site) -> None:
    """A record whose task was removed from the code is not sent for ever."""
    result = site.launch("mark", new_label())
    run_out(site, result, name="removed")
    assert swept(site).lost == 1
    record = site.record(result)
    assert record is not None
    assert record.error is not None
    assert record.error.startswith("no task of this name")


def test_retry_whose_message_was_lost_is_sent_again(site: Site) -> None:
    """The attempt that was due is the one that runs."""
    label = new_label()
    result = site.launch("recover", label)
    site.empty_broker()
    run_out(site, result, state="retry", retries=2)
    assert swept(site).dispatched == 1
    with site.worker():
        record = site.wait(result, TaskState.SUCCESS)
    assert record.retries == 2
    assert site.count(label) == 1


def test_each_task_is_swept_for_its_own_organization(site: Site) -> None:
    """Found across organizations, published as itself: each runs where it belongs."""
    label = new_label()
    with_b = [for_each_tenant(site.app.tasks["mark"], [A, B], label) for _ in range(3)]
    site.empty_broker()
    site.change("update task_records set due_at = now()")
    assert swept(site).dispatched == 6
    with site.worker():
        for of_a, of_b in with_b:
            site.wait(of_a, TaskState.SUCCESS)
            site.wait(of_b, TaskState.SUCCESS, organization_id=B)
    assert (site.count(label, A), site.count(label, B)) == (3, 3)


def test_sweepers_at_once_share_the_work(site: Site) -> None:
    """Four sweepers that start together dispatch each of forty tasks once."""
    for _ in range(40):
        site.launch("mark", "x")
    site.empty_broker()
    site.change("update task_records set due_at = now()")
    start, found = threading.Barrier(4), []

    def work() -> None:
        start.wait()
        found.append(swept(site, limit=15))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    while (last := swept(site)).dispatched:
        found.append(last)
    assert sum(sweeper.dispatched for sweeper in found) == site.messages() == 40


def test_sweeper_passes_over_what_another_one_holds(site: Site) -> None:
    """A record that is locked by another sweeper is neither waited for nor taken."""
    held, free = site.launch("mark", "x"), site.launch("mark", "x")
    for result in (held, free):
        run_out(site, result)
    with cursor_of(site.database.superuser_url) as cursor:
        cursor.execute("begin")
        cursor.execute("select from task_records where id = %s for update", [held.id])
        assert swept(site).dispatched == 1
        cursor.execute("rollback")
    assert swept(site).dispatched == 1


def test_sweeps_are_logged_as_work_across_tenants(site: Site) -> None:
    """The maintenance log says that the sweeper looked, before it did."""
    swept(site, actor="a test")
    with cursor_of(site.database.superuser_url) as cursor:
        cursor.execute("select reason from maintenance_log where actor = 'a test'")
        assert cursor.fetchall() == [("task sweeper",)]


def test_sweeping_reads_open_tasks_only(site: Site) -> None:
    """The sweeper's look goes through the index of unfinished tasks, however many have ended."""
    site.launch("mark", "x")
    site.change(
        "insert into task_records (organization_id, name, args_digest, payload, state)"
        " select organization_id, name, args_digest, payload, 'success' from task_records,"
        " generate_series(1, 20000)"
    )
    site.change("analyze task_records")
    query = select(TaskRecord.id).where(TaskRecord.due_at <= "2100-01-01")
    with site.maintenance.connect() as connection:
        text = str(query.compile(connection, compile_kwargs={"literal_binds": True}))
        plan = "\n".join(connection.exec_driver_sql(f"explain {text}").scalars())
    assert "ix_task_records_organization_id_due_at" in plan


def test_sweep_is_a_task_that_beat_runs(site: Site) -> None:
    """`tenantry.sweep` is registered, works for no tenant, leaves no record, and is scheduled."""
    task = site.app.tasks["tenantry.sweep"]
    assert task.record is False
    entry = site.app.conf.beat_schedule["tenantry.sweep"]
    assert entry["task"] == "tenantry.sweep"
    assert entry["schedule"] == 60.0


def test_application_without_records_cannot_be_swept() -> None:
    """The error says what is missing."""
    app = Celery("bare", set_as_current=False)
    install_tenancy(app, key="k" * 32)
    with pytest.raises(ConfigurationError, match="keeps no task records"):
        sweep(app)
    app.close()


def test_fan_out_launches_one_task_for_each_organization(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """One task for each id that the callable returns, for no user; one that is gone is logged."""
    gone = uuid.UUID(int=0xDEAD)
    label = new_label()
    launched = for_each_tenant(site.app.tasks["mark"], lambda: [A, gone, B], label, note="night")
    assert len(launched) == 2
    assert f"task mark was not launched for {gone}" in caplog.text
    with site.worker():
        site.wait(launched[0], TaskState.SUCCESS)
        record = site.wait(launched[1], TaskState.SUCCESS, organization_id=B)
    assert (record.user_id, record.payload["kwargs"]) == (None, {"note": "night"})
    assert (site.count(label, A), site.count(label, B)) == (1, 1)
    with tenant_scope(A, sessions=site.sessions) as session:
        assert len(session.scalars(select(TaskRecord)).all()) == 1

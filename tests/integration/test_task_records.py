"""What a task's record says while the task lives, and what it lets a worker do."""

import hashlib
import uuid
from collections.abc import Iterator

import pytest
from celery import chain, chord, group
from celery.exceptions import TaskRevokedError
from tests.fixtures.recorded_site import ALICE, Site, new_site
from tests.fixtures.task_board import new_label, wait_until
from tests.fixtures.worlds import A, B

from tenantry import Tenant
from tenantry.celery import TaskState, publishing_for
from tenantry.testing import Server


@pytest.fixture(scope="module")
def site(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site with a worker in this process."""
    with new_site(tenantry_server, tenantry_template) as made, made.worker():
        yield made


def test_success_is_recorded_with_times_worker_and_arguments(site: Site) -> None:
    """A launched task's record tells for whom, with what, where and how long it ran."""
    label = new_label()
    result = site.launch("mark", label)
    assert result.get(timeout=90) == label
    record = site.record(result)
    assert record is not None
    assert (record.state, record.name, record.user_id) == (TaskState.SUCCESS, "mark", ALICE.id)
    assert record.dispatched_at is not None
    assert record.started_at is not None
    assert record.finished_at is not None
    assert record.queued_at <= record.dispatched_at <= record.started_at <= record.finished_at
    assert record.runtime is not None
    assert 0 < record.runtime < 30
    assert record.worker
    assert (record.retries, record.error, record.due_at) == (0, None, None)
    assert record.payload == {"args": [label], "kwargs": {}, "options": {}}
    expected = hashlib.sha256(f'[["{label}"], {{}}]'.encode()).hexdigest()
    assert record.args_digest == expected
    assert site.count(label) == 1


def test_record_is_final_before_the_result_is_there(site: Site) -> None:
    """Whoever has waited for the result finds the record finished, without waiting again."""
    for _ in range(20):
        result = site.launch("mark", new_label())
        result.get(timeout=90, interval=0.01)
        record = site.record(result)
        assert record is not None
        assert record.state is TaskState.SUCCESS


def test_failure_is_recorded_with_the_first_line_of_its_error(site: Site) -> None:
    """The record keeps what kind of error it was and its first line, cut to 500 characters."""
    result = site.launch("fail", "x" * 900 + "\nsecret second line")
    with pytest.raises(ValueError, match="xxx"):
        result.get(timeout=90)
    record = site.record(result)
    assert record is not None
    assert record.state is TaskState.FAILURE
    assert record.error is not None
    assert record.error.startswith("ValueError: xxx")
    assert len(record.error) == 500
    assert record.finished_at is not None


def test_task_may_commit_in_steps(site: Site) -> None:
    """What was committed stays, what came after is rolled back, and both were in the tenant."""
    label = new_label()
    site.wait(site.launch("step", label), TaskState.FAILURE)
    assert (site.count(f"{label} first"), site.count(f"{label} second")) == (1, 0)
    assert site.count(label, B) == 0


def test_task_that_took_too_long_is_not_tried_again(site: Site) -> None:
    """Its soft time limit ends a task for good: another attempt would take as long."""
    label = new_label()
    record = site.wait(site.launch("overrun", label), TaskState.FAILURE)
    assert (record.retries, record.error) == (0, "SoftTimeLimitExceeded: SoftTimeLimitExceeded()")
    assert site.count(label) == 1


def test_retries_are_counted_in_one_record(site: Site) -> None:
    """A task that succeeds at its third attempt, its database being back, has one record."""
    label = new_label()
    result = site.launch("recover", label)
    assert result.get(timeout=90) == 2
    record = site.record(result)
    assert record is not None
    assert (record.state, record.retries, record.error) == (TaskState.SUCCESS, 2, None)
    assert site.count(label) == 3


def test_task_that_waits_for_its_retry_says_so(site: Site) -> None:
    """Between two attempts the record is RETRY, with the error and the attempt that is due."""
    label = new_label()
    task = site.app.tasks["recover"]
    task.default_retry_delay = 3600
    try:
        result = site.launch("recover", label)
        record = site.wait(result, TaskState.RETRY)
    finally:
        task.default_retry_delay = 0
    assert (record.retries, record.error) == (1, "ConnectionError: not yet")
    assert record.due_at is not None
    assert record.eta is not None
    assert record.eta < record.due_at


def test_task_published_in_another_way_is_recorded_when_it_starts(site: Site) -> None:
    """What is published without the launcher gets its record from the worker, for its sealer."""
    label = new_label()
    with publishing_for(Tenant(B)):
        result = site.app.tasks["mark"].delay(label)
    result.get(timeout=90)
    record = site.record(result, B)
    assert record is not None
    assert (record.organization_id, record.user_id) == (B, None)
    assert (record.state, record.dispatched_at) == (TaskState.SUCCESS, None)
    assert site.record(result, A) is None


def test_each_task_of_a_canvas_has_a_record(site: Site) -> None:
    """Chain, group and chord with its body leave one record for each task, all of one tenant."""
    mark, collect = site.app.tasks["mark"], site.app.tasks["collect"]
    labels = [new_label() for _ in range(5)]
    with publishing_for(Tenant(A, ALICE.id)):
        results = [
            chain(mark.si(labels[0]), mark.si(labels[1])).apply_async(),
            chord(
                group(mark.si(labels[2]), mark.si(labels[3])), collect.s(labels[4])
            ).apply_async(),
        ]
    assert results[0].get(timeout=90) == labels[1]
    assert results[1].get(timeout=90) == 2
    assert [site.count(label) for label in labels] == [1] * 5
    members = [results[0], results[0].parent, results[1], *results[1].parent.results]
    records = [site.record(member) for member in members]
    assert all(record is not None and record.state is TaskState.SUCCESS for record in records)
    assert {record.user_id for record in records if record} == {ALICE.id}


def test_payload_cannot_choose_the_tenant(site: Site) -> None:
    """Arguments called organization_id and user_id are the task's own, and change nothing."""
    label = new_label()
    result = site.launch("mark", label, organization_id=str(B), user_id=str(uuid.UUID(int=9)))
    result.get(timeout=90)
    record = site.record(result)
    assert record is not None
    assert (record.organization_id, record.user_id) == (A, ALICE.id)
    assert (site.count(label, A), site.count(label, B)) == (1, 0)


def test_second_delivery_of_a_finished_task_is_not_executed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that comes again after the end is dropped, and the result stays what it was."""
    label = new_label()
    result = site.launch("mark", label)
    result.get(timeout=90)
    with publishing_for(Tenant(A, ALICE.id)):
        site.app.tasks["mark"].apply_async((label,), task_id=result.id)
    _drain(site)
    assert "was delivered again after its end (success); not executed" in caplog.text
    assert site.count(label) == 1
    assert result.get(timeout=90) == label


def test_second_delivery_of_a_failed_task_leaves_it_failed(site: Site) -> None:
    """Neither record nor result of a failed task change, though STARTED was stored meanwhile."""
    result = site.launch("fail", "no")
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=90)
    with publishing_for(Tenant(A, ALICE.id)):
        site.app.tasks["fail"].apply_async(("no",), task_id=result.id)
    _drain(site)
    assert result.state == "FAILURE"
    record = site.record(result)
    assert record is not None
    assert (record.state, record.error) == (TaskState.FAILURE, "ValueError: no")


def test_revoked_record_keeps_its_task_from_running(site: Site) -> None:
    """A worker that takes the message of a revoked task does not execute it, and says so."""
    label = new_label()
    result = site.launch("mark", label, countdown=3600)
    site.change("update task_records set state = 'revoked' where id = %s", result.id)
    with publishing_for(Tenant(A, ALICE.id)):
        site.app.tasks["mark"].apply_async((label,), task_id=result.id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=90)
    assert site.count(label) == 0


def test_message_whose_record_was_purged_is_not_executed(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Without its record a launched task neither runs nor gets a new one; its result says so."""
    label = new_label()
    result = site.launch("mark", label, countdown=1)
    site.change("delete from task_records where id = %s", result.id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=90)
    assert f"the record of task mark[{result.id}]" in caplog.text
    assert site.count(label) == 0
    assert site.record(result) is None


def test_retry_whose_record_was_purged_is_not_executed(site: Site) -> None:
    """A task's next attempt knows of its record, however the first one was published."""
    label = new_label()
    task = site.app.tasks["recover"]
    task.default_retry_delay = 2
    try:
        with publishing_for(Tenant(A, ALICE.id)):
            result = task.delay(label)
        site.wait(result, TaskState.RETRY)
    finally:
        task.default_retry_delay = 0
    site.change("delete from task_records where id = %s", result.id)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=90)
    assert site.count(label) == 1


def test_message_of_an_earlier_attempt_is_not_executed(site: Site) -> None:
    """Once a retry is due, the message of the attempt before it is out of date."""
    label = new_label()
    with publishing_for(Tenant(A)):
        task_id = str(uuid.uuid4())
        site.app.tasks["mark"].apply_async((label,), task_id=task_id, retries=2)
        wait_until(lambda: site.count(label) == 1, 90, lambda: "not executed")
        site.wait(uuid.UUID(task_id), TaskState.SUCCESS)
        site.change("update task_records set state = 'retry' where id = %s", task_id)
        site.app.tasks["mark"].apply_async((label,), task_id=task_id, retries=1)
        _drain(site)
        assert site.count(label) == 1
        site.app.tasks["mark"].apply_async((label,), task_id=task_id, retries=2)
    wait_until(lambda: site.count(label) == 2, 90, lambda: "the due attempt was not executed")


def test_unrecorded_task_leaves_no_record(site: Site) -> None:
    """`record = False` turns the record off for a task; it runs for its tenant all the same."""
    label = new_label()
    result = site.launch("mark_unrecorded", label)
    result.get(timeout=90)
    assert site.count(label) == 1
    assert site.record(result) is None


def test_replaced_task_keeps_its_one_record(site: Site) -> None:
    """A task that takes another's place and id finishes the record that the other began."""
    label = new_label()
    result = site.launch("replace", label)
    assert result.get(timeout=90) == label
    record = site.record(result)
    assert record is not None
    assert (record.name, record.state) == ("replace", TaskState.SUCCESS)
    assert site.count(label) == 1


def test_result_that_cannot_be_stored_is_a_failure(site: Site) -> None:
    """The task's code succeeded, but nobody will ever see its answer: the record says so."""
    result = site.launch("answer_oddly")
    record = site.wait(result, TaskState.FAILURE)
    assert record.error is not None
    assert "EncodeError" in record.error


def test_task_that_ignores_itself_counts_as_executed(site: Site) -> None:
    """Ignore leaves Celery's result alone; the record ends, so that nobody looks for the task."""
    record = site.wait(site.launch("ignore"), TaskState.SUCCESS)
    assert record.due_at is None


def test_rejected_task_is_a_failure(site: Site) -> None:
    """A message that is rejected for good will not come again."""
    record = site.wait(site.launch("reject"), TaskState.FAILURE)
    assert record.error is not None
    assert "unwanted" in record.error


def test_task_launched_by_a_task_is_recorded_for_its_user(site: Site) -> None:
    """What a task publishes runs, and is recorded, for the same organization and user."""
    label = new_label()
    site.launch("launch_inside", label).get(timeout=90)
    wait_until(lambda: site.count(label) == 1, 90, lambda: "the inner task did not run")


def test_eager_execution_is_recorded(tenantry_server: Server, tenantry_template: str) -> None:
    """With task_always_eager a launch executes at once, in this process, and records it."""
    label = new_label()
    with new_site(tenantry_server, tenantry_template, task_always_eager=True) as site:
        result = site.launch("mark", label)
        assert result.get() == label
        record = site.record(result)
        assert record is not None
        assert record.state is TaskState.SUCCESS
        retried = site.launch("recover", new_label())
        assert retried.get() == 2


def _drain(site: Site) -> None:
    """Return when the worker has taken all that was published before."""
    site.launch("mark", new_label()).get(timeout=90)

"""`tenantry tasks …` as a person runs it."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fixtures.recorded_site import ALICE, BOB, Site, new_site
from tests.fixtures.task_board import new_label
from tests.fixtures.tasks_command import Tasks, tasks_command, text
from tests.fixtures.worlds import A, B, cursor_of

from tenantry.celery import TaskState
from tenantry.testing import Server

MINE = ("--organization", str(A))
EVERYONE = ("--all", "--reason", "ticket 12")
APP = ("--app", "tests.fixtures.recorded_app:app")


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


@pytest.fixture
def tasks(site: Site) -> Tasks:
    """Return what runs the command on the site's database."""
    return tasks_command(site)


def state_of(site: Site, result: Any, organization_id: uuid.UUID = A) -> TaskState:
    """Return the state of a task."""
    record = site.record(result, organization_id)
    assert record is not None
    return record.state


def test_list_shows_the_organizations_own_tasks(site: Site, tasks: Tasks) -> None:
    """The newest first, as a table or as JSON, by state and no more than asked for."""
    first, second = site.launch("mark", "x"), site.launch("fail", "y")
    site.launch("mark", "z", user=BOB)
    site.change("update task_records set state = 'failure' where id = %s", second.id)
    listed = json.loads(tasks("list", *MINE, "--json"))
    assert [(row["id"], row["name"], row["state"]) for row in listed] == [
        (second.id, "fail", "failure"),
        (first.id, "mark", "dispatched"),
    ]
    assert listed[0]["user_id"] == str(ALICE.id)
    failed = json.loads(tasks("list", *MINE, "--json", "--state", "FAILURE", "--state", "lost"))
    assert [row["id"] for row in failed] == [second.id]
    assert len(json.loads(tasks("list", *MINE, "--json", "--limit", "1"))) == 1
    table = tasks("list", *MINE)
    assert first.id in table
    assert second.id in table
    assert "dispatched" in table


def test_list_of_all_names_the_organizations_and_is_logged(site: Site, tasks: Tasks) -> None:
    """Work across tenants shows whose each task is; reason and person are in the log."""
    site.launch("mark", "x")
    site.launch("mark", "y", user=BOB)
    listed = json.loads(tasks("list", *EVERYONE, "--json"))
    assert {row["organization_id"] for row in listed} == {str(A), str(B)}
    with cursor_of(site.database.superuser_url) as cursor:
        cursor.execute("select actor from maintenance_log where reason = 'ticket 12'")
        (actor,) = cursor.fetchone()
    assert actor.startswith("tenantry tasks, ")


def test_show_tells_everything_of_a_task(site: Site, tasks: Tasks) -> None:
    """The arguments as well; another organization's task is as good as none."""
    result = site.launch("mark", "label", note=["n"])
    shown = json.loads(tasks("show", result.id, *MINE, "--json"))
    assert (shown["args"], shown["kwargs"]) == (["label"], {"note": ["n"]})
    assert result.id in tasks("show", result.id, *MINE)
    answers = {
        tasks("show", task_id, "--organization", str(B), status=1).replace(task_id, "ID")
        for task_id in (result.id, str(uuid.uuid4()))
    }
    assert answers == {"error: there is no task ID\n"}


def test_revoke_keeps_a_task_from_being_executed(site: Site, tasks: Tasks) -> None:
    """It works on this broker, which has no remote control, because the worker asks the record."""
    label = new_label()
    revoked, ended = site.launch("mark", label), site.launch("mark", new_label())
    site.change("update task_records set state = 'success' where id = %s", ended.id)
    unknown = str(uuid.uuid4())
    answer = json.loads(tasks("revoke", revoked.id, ended.id, unknown, *MINE, "--json"))
    assert answer == {"revoked": [revoked.id], "unchanged": sorted([ended.id, unknown])}
    with site.worker():
        site.launch("mark", new_label()).get(timeout=90)
    assert site.count(label) == 0
    assert state_of(site, revoked) is TaskState.REVOKED
    assert tasks("revoke", revoked.id, ended.id, unknown, *MINE, status=1).splitlines() == sorted(
        [
            f"unchanged {revoked.id}: it is revoked",
            f"unchanged {ended.id}: it is success",
            f"unchanged {unknown}: there is no such task",
        ]
    )


def test_terminate_says_what_it_takes(site: Site, tasks: Tasks) -> None:
    """PostgreSQL as broker reaches no running worker; nothing is revoked then."""
    result = site.launch("mark", "x")
    for arguments in ((), APP):
        answer = tasks("revoke", result.id, "--terminate", *MINE, *arguments, status=1)
        assert answer.startswith("error: a running task can be terminated only with --app")
    assert state_of(site, result) is TaskState.DISPATCHED


def test_requeue_publishes_with_an_application(site: Site, tasks: Tasks) -> None:
    """A failed task runs again from the beginning, for its own organization and user."""
    label = new_label()
    result = site.launch("mark", label, user=BOB)
    site.empty_broker()
    site.change(
        "update task_records set state = 'failure', retries = 3, error = 'x' where id = %s",
        result.id,
    )
    assert tasks("requeue", result.id, *EVERYONE, *APP) == f"queued {result.id}\n"
    with site.worker():
        record = site.wait(result, TaskState.SUCCESS, organization_id=B)
    assert (record.retries, record.error, record.user_id) == (0, None, BOB.id)
    assert site.count(label, B) == 1
    answer = tasks("requeue", result.id, *EVERYONE, *APP, status=1)
    assert answer == f"unchanged {result.id}: it is success\n"


def test_requeue_without_an_application_leaves_it_to_the_sweeper(site: Site, tasks: Tasks) -> None:
    """The record is queued and due at once; no message is sent."""
    result = site.launch("mark", "x")
    site.empty_broker()
    site.change("update task_records set state = 'lost', due_at = null where id = %s", result.id)
    tasks("requeue", result.id, *MINE)
    record = site.record(result)
    assert record is not None
    assert record.state is TaskState.QUEUED
    assert record.due_at is not None
    assert site.messages() == 0


def test_purge_deletes_what_ended_long_ago(site: Site, tasks: Tasks) -> None:
    """Only tasks that have ended, only old ones, only the organization's."""
    old, fresh, running = (site.launch("mark", "x") for _ in range(3))
    foreign = site.launch("mark", "x", user=BOB)
    ended = "update task_records set state = 'success', finished_at = now() - %s::interval"
    for result, age in ((old, "3 days"), (fresh, "1 hour"), (foreign, "3 days")):
        site.change(f"{ended} where id = %s", age, result.id)
    assert tasks("purge", "--older-than", "2", *MINE) == "purged 1 task records\n"
    assert site.record(old) is None
    assert site.record(fresh) is not None
    assert site.record(running) is not None
    assert site.record(foreign, B) is not None
    assert json.loads(tasks("purge", "--older-than", "2", *EVERYONE, "--json")) == {"purged": 1}


def test_purge_keeps_what_a_message_may_still_ask_for(site: Site, tasks: Tasks) -> None:
    """A revoked task's record stays until its message is due no more: 15 minutes, from its eta."""
    soon, later = site.launch("mark", "x"), site.launch("mark", "x", countdown=3600)
    tasks("revoke", soon.id, later.id, *MINE)
    assert tasks("purge", "--older-than", "0", *MINE) == "purged 0 task records\n"
    site.change("update task_records set finished_at = now() - interval '16 minutes'")
    assert tasks("purge", "--older-than", "0", *MINE) == "purged 1 task records\n"
    assert site.record(soon) is None
    assert site.record(later) is not None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("list",), "say whose tasks: --organization ID, or --all --reason TEXT"),
        (("list", *MINE, "--all"), "say whose tasks: --organization ID, or --all --reason TEXT"),
        (("list", "--all"), "--all is work across tenants and is logged: say --reason TEXT"),
        (("list", "--organization", "acme"), "--organization: organization_id must be a UUID"),
        (("show", "7", *MINE), "'7' is no UUID"),
        (("list", *MINE, "--state", "done"), "'done' is not a valid TaskState: use queued,"),
        (
            ("purge", "--older-than", "1", *MINE, "--state", "queued"),
            "tasks that have not ended cannot be purged: queued",
        ),
        (("list", *MINE, "--app", "nowhere:app"), "'nowhere:app' names no Celery application"),
        (("list", *MINE, "--app", "json:dumps"), "'json:dumps' is a function, no Celery"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tasks: Tasks, arguments: tuple[str, ...], message: str
) -> None:
    """Each says what was wrong and what to write instead; the exit status is 1."""
    answer = tasks(*arguments, status=1)
    assert answer.startswith(f"error: {message}")
    assert answer.count("\n") == 1


def test_application_may_come_from_the_environment(site: Site, tasks: Tasks) -> None:
    """CELERY_APP stands for --app."""
    result = site.launch("mark", "x")
    site.empty_broker()
    tasks("requeue", result.id, *MINE, CELERY_APP="tests.fixtures.recorded_app")
    assert site.messages() == 1


def test_database_without_the_table_is_named(tenantry_server: Server, tasks: Tasks) -> None:
    """Before the migrations there is one line that names them."""
    empty = tenantry_server.create_database()
    try:
        answer = tasks("list", *MINE, status=1, DATABASE_URL=text(empty.app_url))
    finally:
        empty.drop()
    assert answer.startswith("error: ")
    assert "alembic upgrade head" in answer
    assert answer.count("\n") == 1

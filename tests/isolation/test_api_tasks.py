"""Tasks over HTTP: launched once for a key, and nobody else's, whatever id or key they send."""

import secrets
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import sessionmaker
from tests.fixtures.api_site import Member, Site, new_member, new_site
from tests.fixtures.assay_workers import environment, wait_for, working
from tests.fixtures.worlds import cursor_of

from assay.models import RunStatus, TaskRecord, TestRun
from assay.services.runs import begin_run, missing_tests
from assay.services.tokens import issue_token
from assay.services.users import create_user
from tenantry import tenant_scope
from tenantry.celery import TaskState
from tenantry.testing import Database

NOTHING = b'{"title":"Not Found","status":404}'


@pytest.fixture(scope="module")
def site(tenantry_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Return a running API, with no worker: what is launched stays where it is."""
    with new_site(tenantry_database, tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def member(site: Site) -> Member:
    """Return a member of an organization of the test's own."""
    return new_member(site.engine, uuid.uuid4().hex)


def execute(
    site: Site, member: Member, key: str | None = None, *, configuration: uuid.UUID | None = None
) -> httpx2.Response:
    """Ask for a run of the member's configuration, or of this one."""
    keyed = {} if key is None else {"Idempotency-Key": key}
    configuration = configuration or member.ids["configuration_id"]
    return site.http.post(
        f"/test_configurations/{configuration}/execute", headers=member.headers | keyed
    )


def launched(site: Site, member: Member) -> int:
    """Return how many runs the organization has launched."""
    query = (
        select(func.count())
        .select_from(TaskRecord)
        .where(TaskRecord.name.endswith("execute_test_configuration"))
    )
    with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
        return session.scalar(query) or 0


def show(site: Site, member: Member, task_id: object, action: str = "") -> httpx2.Response:
    """Ask for a task, or cancel it."""
    method = "POST" if action else "GET"
    return site.http.request(method, f"/tasks/{task_id}{action}", headers=member.headers)


def test_key_launches_one_task_however_many_ask(site: Site, member: Member) -> None:
    """Twelve requests at once with one key, and a late one, get the same task: there is one."""
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: execute(site, member, "once"), range(12)))
    answers.append(execute(site, member, "once"))
    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert launched(site, member) == 1


def test_request_without_a_key_is_one_of_its_own(site: Site, member: Member) -> None:
    """Without a key each request launches."""
    first, second = (execute(site, member).json()["task_id"] for _ in range(2))
    assert first != second
    assert launched(site, member) == 2


def test_key_means_its_own_user(site: Site, member: Member) -> None:
    """The same key of a colleague, or in another organization, is another key."""
    sessions = sessionmaker(site.engine)
    with tenant_scope(member.organization_id, sessions=sessions) as session:
        user_id = create_user(session, "colleague@example.org").id
        token = issue_token(session, user_id, "test").text
    colleague = Member(member.organization_id, user_id, token, member.ids)
    stranger = new_member(site.engine, uuid.uuid4().hex)
    tasks = [
        execute(site, caller, "shared").json()["task_id"]
        for caller in (member, colleague, stranger, member)
    ]
    assert len(set(tasks)) == 3
    assert tasks[0] == tasks[3]
    assert (launched(site, member), launched(site, stranger)) == (2, 1)


def test_key_is_not_for_another_configuration(site: Site, member: Member) -> None:
    """A key that was used is refused for another request; one that launched nothing is free."""
    body = {
        "name": "other",
        "test_set_id": str(member.ids["set_id"]),
        "endpoint_id": str(member.ids["endpoint_id"]),
    }
    other = site.http.post("/test_configurations", json=body, headers=member.headers).json()["id"]
    assert execute(site, member, "k", configuration=uuid.uuid4()).status_code == 404
    assert execute(site, member, "k").status_code == 202
    refused = execute(site, member, "k", configuration=uuid.UUID(other))
    assert (refused.status_code, "Idempotency-Key" in refused.json()["detail"]) == (422, True)
    assert launched(site, member) == 1
    for key in ("", "a b", "x" * 201):
        assert execute(site, member, key).status_code == 422


def test_key_is_answered_after_its_configuration_is_gone(site: Site, member: Member) -> None:
    """Who asks again learns of the task, not that its configuration is not there any more."""
    first = execute(site, member, "late")
    path = f"/test_configurations/{member.ids['configuration_id']}"
    assert site.http.delete(path, headers=member.headers).status_code == 204
    assert execute(site, member, "late").content == first.content
    assert execute(site, member, "later").status_code == 404


def test_cancelled_task_runs_nothing(site: Site, member: Member) -> None:
    """A task that no worker has begun is revoked, and its run, begun later, is a cancelled one."""
    task_id = execute(site, member).json()["task_id"]
    assert show(site, member, task_id).json()["status"] in {"queued", "dispatched"}
    cancelled = show(site, member, task_id, "/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "revoked")
    assert cancelled.json()["error"] == "cancelled by a user"
    assert show(site, member, task_id, "/cancel").status_code == 409
    organization_id = member.organization_id
    with tenant_scope(organization_id, sessions=sessionmaker(site.engine)) as session:
        run_id = begin_run(
            session,
            organization_id=organization_id,
            configuration_id=member.ids["configuration_id"],
            task_id=uuid.UUID(task_id),
        )
        assert missing_tests(session, organization_id, run_id) == []
    run = site.http.get(f"/test_runs/{run_id}", headers=member.headers).json()
    assert (run["status"], run["error"]) == ("cancelled", "cancelled by a user")
    path = f"/test_runs/{run_id}/cancel"
    assert site.http.post(path, headers=member.headers).status_code == 409


def test_task_that_has_ended_cancels_its_run(site: Site, member: Member) -> None:
    """The task that sends out the tests is done long before its run, which is what is cancelled."""
    task_id = execute(site, member).json()["task_id"]
    organization_id = member.organization_id
    with tenant_scope(organization_id, sessions=sessionmaker(site.engine)) as session:
        run_id = begin_run(
            session,
            organization_id=organization_id,
            configuration_id=member.ids["configuration_id"],
            task_id=uuid.UUID(task_id),
        )
    end(site, member, task_id, "2020-01-01")
    run = site.http.get(f"/test_runs/{run_id}", headers=member.headers).json()
    assert (run["status"], run["summary"]["missing"]) == ("running", 1)
    cancelled = show(site, member, task_id, "/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "success")
    with tenant_scope(organization_id, sessions=sessionmaker(site.engine)) as session:
        query = select(TestRun.status).where(TestRun.id == run_id)
        assert session.scalar(query) is RunStatus.CANCELLED
    assert show(site, member, task_id, "/cancel").status_code == 409


def test_success_is_shown_with_its_result(site: Site, member: Member) -> None:
    """Until its result can be read a task counts as started, unless it ended long ago."""
    task_id = execute(site, member).json()["task_id"]
    end(site, member, task_id, "now")
    assert show(site, member, task_id).json()["status"] == "started"
    assert show(site, member, task_id).json()["finished_at"] is None
    end(site, member, task_id, "2020-01-01")
    shown = show(site, member, task_id).json()
    assert (shown["status"], shown["result"]) == ("success", None)


def end(site: Site, member: Member, task_id: str, moment: str) -> None:
    """Note the task as succeeded at this moment."""
    with tenant_scope(member.organization_id, sessions=sessionmaker(site.engine)) as session:
        session.execute(
            update(TaskRecord)
            .where(TaskRecord.id == uuid.UUID(task_id))
            .values(state=TaskState.SUCCESS, finished_at=moment, due_at=None)
        )


def finished(site: Site, member: Member, task_id: str) -> dict[str, Any]:
    """Return the task once it has succeeded."""
    wait_for(lambda: show(site, member, task_id).json()["status"] == "success", seconds=90)
    found: dict[str, Any] = show(site, member, task_id).json()
    return found


def test_result_is_shown_to_its_organization_alone(fresh_database: Database, tmp_path: Any) -> None:
    """Celery's results know no tenant: the record is looked for first, under the wall.

    The mutation takes the wall of the records down, and another organization reads the result.
    """
    key = secrets.token_hex(32)
    environ = environment(
        lambda login: fresh_database.server.url(login, fresh_database.name), TENANTRY_TASK_KEY=key
    )
    with (
        new_site(fresh_database, tmp_path, TENANTRY_TASK_KEY=key) as site,
        working(environ, tmp_path),
    ):
        mine = execute(site, site.first).json()["task_id"]
        theirs = execute(site, site.second).json()["task_id"]
        shown = finished(site, site.first, mine)
        assert set(shown["result"]) == {"run_id", "sent"}
        assert shown["started_at"] <= shown["finished_at"]
        finished(site, site.second, theirs)
        run = f"/test_runs/{shown['result']['run_id']}"
        assert site.http.get(run, headers=site.first.headers).status_code == 200
        for path in (f"/tasks/{mine}", run, f"{run}/results"):
            assert site.http.get(path, headers=site.second.headers).content == NOTHING
        for path in (f"/tasks/{mine}/cancel", f"{run}/cancel"):
            assert site.http.post(path, headers=site.second.headers).content == NOTHING

        with cursor_of(fresh_database.superuser_url) as cursor:
            cursor.execute("alter table task_records disable row level security")
        assert show(site, site.second, mine).json()["result"] == shown["result"]

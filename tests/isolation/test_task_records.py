"""Records, messages and results of one organization are nothing to another one."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import psycopg2
import pytest
from sqlalchemy import delete, select, update
from tests.fixtures.recorded_site import ALICE, BOB, Site, new_site
from tests.fixtures.task_board import new_label
from tests.fixtures.worlds import A, B, cursor_of, tear_down_wall

from assay.models import TaskRecord
from tenantry import Tenant, tenant_scope
from tenantry.celery import TaskState, publishing_for
from tenantry.celery.control import Reach, find_task, list_tasks, purge, requeue, revoke
from tenantry.testing import Server, check_unprivileged


@pytest.fixture(scope="module")
def site(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site with a worker, whose application's login is proven to be unprivileged."""
    with new_site(tenantry_server, tenantry_template) as made:
        check_unprivileged(made.database.app_url)
        with made.worker():
            yield made


@pytest.fixture
def torn_down(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site whose tables have no wall."""
    with new_site(tenantry_server, tenantry_template) as made:
        tear_down_wall(made.database)
        yield made


def check_records_are_apart(site: Site) -> None:
    """B's every way of asking for A's task answers as for a task that never was."""
    theirs = uuid.UUID(site.launch("mark", new_label(), countdown=3600).id)
    reach = Reach(organization_id=B, app=site.app)
    never = uuid.uuid4()
    with tenant_scope(B, sessions=site.sessions) as session:
        for task_id in (theirs, never):
            assert session.scalars(select(TaskRecord).where(TaskRecord.id == task_id)).all() == []
            chosen = TaskRecord.id == task_id
            change = update(TaskRecord).where(chosen).values(error="defaced")
            for statement in (change, delete(TaskRecord).where(chosen)):
                assert session.scalars(statement.returning(TaskRecord.id)).all() == []
    for task_id in (theirs, never):
        assert find_task(reach, task_id) is None
        assert revoke(reach, [task_id]) == []
        assert requeue(reach, [task_id]) == []
    assert theirs not in {record.id for record in list_tasks(reach)}
    record = site.record(theirs)
    assert record is not None
    assert (record.state, record.error) == (TaskState.DISPATCHED, None)


def test_task_of_another_organization_looks_like_none(site: Site) -> None:
    """Reading, changing, revoking and requeueing another's task is as with an unknown id."""
    check_records_are_apart(site)


def check_rows_are_apart(site: Site) -> None:
    """SQL of B's own writing finds B's records and no others."""
    site.launch("mark", new_label(), countdown=3600)
    with cursor_of(site.database.app_url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [str(B)])
        cursor.execute(
            "select organization_id from task_records where organization_id <> %s", [str(B)]
        )
        assert cursor.fetchall() == []


def test_sql_finds_the_tenants_own_records_alone(site: Site) -> None:
    """The wall is the database's, whatever the statement."""
    check_rows_are_apart(site)


def test_without_the_wall_the_same_check_fails(torn_down: Site) -> None:
    """The mutation: with row security off, B's SQL finds A's records."""
    with pytest.raises(AssertionError):
        check_rows_are_apart(torn_down)


def test_same_task_id_does_not_conflict_with_another_organizations(site: Site) -> None:
    """Launching with an id that A has used works for B and touches nothing of A's."""
    task_id = uuid.uuid4()
    mine, theirs = new_label(), new_label()
    site.launch("mark", mine, task_id=task_id).get(timeout=90)
    site.launch("mark", theirs, task_id=task_id, user=BOB)
    site.wait(task_id, TaskState.SUCCESS, organization_id=B)
    assert (site.count(mine, A), site.count(theirs, B)) == (1, 1)
    record = site.record(task_id, A)
    assert record is not None
    assert record.payload["args"] == [mine]


def test_purge_reaches_one_organization(site: Site) -> None:
    """B's purge deletes B's finished records alone."""
    of_a = site.launch("mark", new_label())
    of_b = site.launch("mark", new_label(), user=BOB)
    site.wait(of_a, TaskState.SUCCESS)
    site.wait(of_b, TaskState.SUCCESS, organization_id=B)
    site.change("update task_records set finished_at = now() - interval '2 days'")
    from_long_ago = Reach(organization_id=B, app=site.app)
    assert purge(from_long_ago, older_than=timedelta(days=1)) >= 1
    assert site.record(of_b, B) is None
    assert site.record(of_a) is not None


def test_forged_message_does_not_touch_the_record_it_names(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """A message whose tenant was exchanged is refused: logged, a failed result, nothing else."""
    label = new_label()
    result = site.launch("mark", label, countdown=3600)
    before = site.record(result)
    assert before is not None
    with publishing_for(Tenant(B, BOB.id)):
        site.app.tasks["fail"].apply_async((label,), task_id=result.id, queue="aside")
    forged = (
        "update kombu_message set payload = replace(payload, %s, %s),"
        " queue_id = (select id from kombu_queue where name = 'recorded')"
        " where queue_id = (select id from kombu_queue where name = 'aside')"
    )
    with cursor_of(site.broker) as cursor:
        cursor.execute(forged, [str(B), str(A)])
        assert cursor.rowcount == 1
    site.launch("mark", new_label()).get(timeout=90)
    assert "whose seal is wrong" in caplog.text
    assert site.app.AsyncResult(result.id).state == "FAILURE"
    after = site.record(result)
    assert after is not None
    assert {k: v for k, v in vars(after).items() if k != "_sa_instance_state"} == {
        k: v for k, v in vars(before).items() if k != "_sa_instance_state"
    }
    assert site.record(result, B) is None
    assert (site.count(label, A), site.count(label, B)) == (0, 0)


@pytest.mark.parametrize(
    "table", ["kombu_message", "kombu_queue", "celery_taskmeta", "celery_tasksetmeta"]
)
@pytest.mark.parametrize("verb", ["select count(*) from", "delete from"])
def test_application_cannot_look_into_the_brokers_schema(site: Site, table: str, verb: str) -> None:
    """The application's login gets into no table of messages or results, by whatever name."""
    site.launch("mark", new_label()).get(timeout=90)
    with cursor_of(site.broker) as cursor:
        cursor.execute("select to_regclass(%s) is not null", [f"tenantry_broker.{table}"])
        assert cursor.fetchone() == (True,)
    with cursor_of(site.database.app_url) as cursor:
        with pytest.raises(psycopg2.errors.UndefinedTable):
            cursor.execute(f"{verb} {table}")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(f"{verb} tenantry_broker.{table}")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("create table tenantry_broker.planted ()")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("set role tenantry_broker")


def test_courier_cannot_look_into_the_tenants_tables(site: Site) -> None:
    """The broker's login reads no tenant table, nor can it become the application or the owner."""
    with cursor_of(site.broker) as cursor:
        for table in ("organizations", "task_records", "maintenance_log"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(f"select from public.{table}")
        for role in ("tenantry_app", "tenantry_owner", "tenantry_maintenance"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(f"set role {role}")


def test_maintenance_sees_every_organizations_tasks_with_a_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All tasks are listed for whoever says why; the log keeps reason and actor."""
    of_a, of_b = site.launch("mark", "x"), site.launch("mark", "x", user=BOB)
    monkeypatch.setattr("tenantry.maintenance.default_maintenance_engine", lambda: site.maintenance)
    everything = Reach(reason="ticket 7", actor="carol", app=site.app)
    seen = {(record.organization_id, str(record.id)) for record in list_tasks(everything)}
    assert {(ALICE.organization_id, of_a.id), (BOB.organization_id, of_b.id)} <= seen
    with cursor_of(site.database.superuser_url) as cursor:
        cursor.execute("select count(*) from maintenance_log where reason = 'ticket 7'")
        assert cursor.fetchone() == (1,)

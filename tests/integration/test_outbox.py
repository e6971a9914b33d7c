"""Launching in a transaction: dispatched after its commit, and nothing left after a rollback."""

import logging
import uuid
from collections.abc import Iterator

import pytest
from celery import Celery
from sqlalchemy import select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.fixtures.recorded_app import make_app
from tests.fixtures.recorded_site import ALICE, BOB, Site, User, new_site
from tests.fixtures.task_board import new_label
from tests.fixtures.worlds import A

from assay.models import Base, TaskRecord, TestSet
from tenantry import (
    CrossTenantError,
    InvalidTenantError,
    UnknownTenantError,
    create_tenant_engine,
    get_tenant,
    set_tenant,
    tenant_scope,
)
from tenantry.celery import BaseTask, TaskState, install_tenancy, sweep, task_launcher
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


def records(site: Site) -> list[TaskRecord]:
    """Return the records of organization A."""
    with tenant_scope(A, sessions=site.sessions) as session:
        found = list(session.scalars(select(TaskRecord).order_by(TaskRecord.queued_at)))
        session.expunge_all()
    return found


def test_task_is_dispatched_after_the_commit_of_its_transaction(site: Site) -> None:
    """Until the commit there is no message; the row that the task will look for comes with it."""
    with tenant_scope(A, sessions=site.sessions) as db:
        db.add(TestSet(name=new_label()))
        result = site.launch("mark", "x", db=db)
        assert site.messages() == 0
        assert site.record(result) is None
    assert site.messages() == 1
    record = site.record(result)
    assert record is not None
    assert record.state is TaskState.DISPATCHED


def test_rollback_leaves_neither_record_nor_message(site: Site) -> None:
    """A launch in a transaction that is rolled back has never happened."""
    with site.sessions() as db:
        set_tenant(db, A)
        result = site.launch("mark", "x", db=db)
        db.rollback()
    assert site.record(result) is None
    assert site.messages() == 0


def test_next_transaction_of_the_session_does_not_dispatch_what_was_rolled_back(
    site: Site,
) -> None:
    """What a rollback has undone stays undone when the same Session commits something else."""
    with site.sessions() as db:
        set_tenant(db, A)
        site.launch("mark", "undone", db=db)
        db.rollback()
        site.launch("mark", "done", db=db)
        db.commit()
    assert [record.payload["args"] for record in records(site)] == [["done"]]
    assert site.messages() == 1


def test_savepoint_that_is_rolled_back_takes_its_launches_along(site: Site) -> None:
    """Of three launches, in and around two savepoints, only what was kept is dispatched."""
    with tenant_scope(A, sessions=site.sessions) as db:
        site.launch("mark", "outer", db=db)
        with db.begin_nested():
            site.launch("mark", "kept", db=db)
            savepoint = db.begin_nested()
            site.launch("mark", "undone", db=db)
            site.launch("mark_unrecorded", "undone too", db=db)
            savepoint.rollback()
        assert site.messages() == 0
    assert [record.payload["args"] for record in records(site)] == [["outer"], ["kept"]]
    assert site.messages() == 2


def test_unrecorded_task_is_dispatched_after_the_commit_as_well(site: Site) -> None:
    """Without a record the launch still waits for the transaction, and falls with it."""
    with site.sessions() as db:
        set_tenant(db, A)
        site.launch("mark_unrecorded", "x", db=db)
        db.rollback()
    assert site.messages() == 0
    with tenant_scope(A, sessions=site.sessions) as db:
        site.launch("mark_unrecorded", "x", db=db)
        assert site.messages() == 0
    assert site.messages() == 1
    assert records(site) == []


def test_launch_needs_one_connection_at_a_time(site: Site) -> None:
    """With a pool of a single connection the dispatch does not wait for the caller's."""
    engine = create_tenant_engine(
        site.database.app_url, pool_size=1, max_overflow=0, pool_timeout=2
    )
    app = Celery("narrow", set_as_current=False, broker=site.app.conf.broker_url)
    install_tenancy(app, key="k" * 32, sessions=sessionmaker(engine), records=TaskRecord)

    @app.task(name="mark", base=BaseTask, shared=False)
    def mark(label: str) -> str:
        return label

    try:
        with tenant_scope(A, sessions=sessionmaker(engine)) as db:
            result = task_launcher(mark, "x", current_user=ALICE, db=db)
        record = site.record(result)
        assert record is not None
        assert record.state is TaskState.DISPATCHED
    finally:
        app.close()
        engine.dispose()


def test_session_without_a_tenant_is_bound_to_the_principals(site: Site) -> None:
    """A Session that belongs to nobody yet becomes the principal's; a scoped one will do."""
    registry = scoped_session(site.sessions)
    try:
        site.launch("mark", "x", db=registry)
        tenant = get_tenant(registry)
        assert tenant is not None
        assert (tenant.organization_id, tenant.user_id) == (A, ALICE.id)
        registry.commit()
    finally:
        registry.remove()
    assert site.messages() == 1


def test_session_of_another_organization_is_refused(site: Site) -> None:
    """Nobody launches for himself in another organization's transaction."""
    with tenant_scope(A, sessions=site.sessions) as db, pytest.raises(CrossTenantError):
        site.launch("mark", "x", user=BOB, db=db)
    assert records(site) == []


def test_principal_without_an_organization_is_refused(site: Site) -> None:
    """An id that is none never reaches the database."""

    class Nobody:
        organization_id = "none"
        id = None

    with pytest.raises(InvalidTenantError):
        task_launcher(site.app.tasks["mark"], "x", current_user=Nobody())


def test_unknown_organization_is_named_as_the_cause(site: Site) -> None:
    """A record cannot be filed under an organization that does not exist; nothing is sent."""
    with pytest.raises(UnknownTenantError):
        site.launch("mark", "x", user=User(uuid.UUID(int=0xDEAD), uuid.UUID(int=1)))
    assert site.messages() == 0


@pytest.mark.parametrize("arguments", [(), ("a", "b"), (object(),)], ids=["few", "many", "odd"])
def test_arguments_that_cannot_work_are_refused_at_once(
    site: Site, arguments: tuple[object, ...]
) -> None:
    """Wrong arguments raise in the launcher, and leave neither record nor message."""
    with pytest.raises(TypeError):
        site.launch("mark", *arguments)
    assert records(site) == []
    assert site.messages() == 0


def test_task_id_is_launched_once(site: Site) -> None:
    """A repeated request with the same task id gets the same result, and one message is sent."""
    task_id = uuid.uuid4()
    first = site.launch("mark", "x", task_id=task_id)
    second = site.launch("mark", "x", task_id=task_id)
    assert first.id == second.id == str(task_id)
    assert site.messages() == 1


def test_same_task_id_in_two_organizations_is_two_tasks(site: Site) -> None:
    """Another organization's task id is free: a conflict would tell that it exists."""
    task_id = uuid.uuid4()
    site.launch("mark", "x", task_id=task_id)
    site.launch("mark", "x", task_id=task_id, user=BOB)
    assert site.messages() == 2
    assert site.record(task_id, BOB.organization_id) is not None


def test_what_a_message_can_hold_a_record_can(site: Site) -> None:
    """NUL, not-a-number, UUIDs and nested values survive record and dispatch."""
    label = f"{new_label()}\x00"
    extra = {"a": float("inf"), "b": uuid.UUID(int=5), "c": [{"d": None}]}
    result = site.launch("fail", label, task_id=uuid.uuid4())
    marked = site.launch("mark", new_label(), extra=extra)
    record = site.record(result)
    assert record is not None
    assert record.payload["args"] == [label]
    kept = site.record(marked)
    assert kept is not None
    assert kept.payload["kwargs"] == {"extra": extra}


def test_broker_that_is_down_keeps_the_task_queued_until_a_sweep(
    shared: Site, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """The launcher returns, says why the task waits, and the sweeper sends it later."""

    def dead(url: URL) -> str:
        return url.set(port=1).render_as_string(hide_password=False)

    app = make_app(
        site.database.app_url.render_as_string(hide_password=False),
        dead(site.broker),
        broker_connection_timeout=1,
    )
    label = new_label()
    try:
        with caplog.at_level(logging.WARNING, "tenantry.celery"):
            result = task_launcher(app.tasks["mark"], label, current_user=ALICE)
            with tenant_scope(A, sessions=site.sessions) as db:
                task_launcher(app.tasks["mark"], label, current_user=ALICE, db=db)
    finally:
        app.close()
    assert caplog.text.count("stays queued, the broker cannot be reached") == 2
    assert [record.state for record in records(site)] == [TaskState.QUEUED] * 2
    assert sweep(site.app, engine=site.maintenance).dispatched == 0
    site.change("update task_records set due_at = now()")
    assert sweep(site.app, engine=site.maintenance).dispatched == 2
    with site.worker():
        site.wait(result, TaskState.SUCCESS)
        for record in records(site):
            site.wait(record.id, TaskState.SUCCESS)
    assert site.count(label) == 2


def test_commit_that_fails_dispatches_nothing(site: Site) -> None:
    """A constraint that is checked at the commit undoes the launch with all the rest."""
    with site.sessions() as db:
        set_tenant(db, A)
        site.launch("mark", "x", db=db)
        db.add_all([TestSet(name="twice"), TestSet(name="twice")])
        with pytest.raises(Exception, match="uq_test_sets"):
            db.commit()
        db.rollback()
    assert records(site) == []
    assert site.messages() == 0


def test_session_is_usable_after_the_dispatch(site: Site) -> None:
    """Launching leaves the Session as any commit does: the next transaction begins anew."""
    with site.sessions() as db:
        set_tenant(db, A)
        for number in range(3):
            site.launch("mark", str(number), db=db)
            db.commit()
            assert len(db.scalars(select(TaskRecord)).all()) == number + 1
    assert site.messages() == 3


def test_records_are_written_through_filters_too(
    tenantry_server: Server, tenantry_template: str
) -> None:
    """Where explicit filters are the only wall, tasks are launched, run and recorded as well."""
    with new_site(tenantry_server, tenantry_template) as site:
        engine = create_tenant_engine(site.database.app_url, mode="filters", metadata=Base.metadata)
        app = Celery("filtered", set_as_current=False, task_always_eager=True)
        app.conf.task_always_eager = True
        install_tenancy(app, key="k" * 32, sessions=sessionmaker(engine), records=TaskRecord)

        @app.task(name="fails_once", base=BaseTask, bind=True, shared=False, retry_backoff=False)
        def fails_once(self: BaseTask) -> int:
            if not self.request.retries:
                raise ConnectionError("once")
            return int(self.request.retries)

        try:
            with Session(engine) as db:
                result = task_launcher(fails_once, current_user=ALICE, db=db)
                db.commit()
            record = site.record(result)
            assert record is not None
            assert (record.state, record.retries) == (TaskState.SUCCESS, 1)
        finally:
            app.close()
            engine.dispose()

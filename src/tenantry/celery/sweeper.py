"""Sees to tasks that nothing has happened to in time: never sent, never delivered, or lost."""

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from celery import Celery
from celery.exceptions import WorkerLostError
from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session

from tenantry.celery.installation import tenancy_of
from tenantry.celery.launcher import dispatch
from tenantry.celery.ledger import Ledger
from tenantry.celery.records import TaskRecordMixin, TaskState
from tenantry.celery.tasks import BaseTask, tenant_free
from tenantry.context import Tenant
from tenantry.exceptions import ConfigurationError
from tenantry.maintenance import maintenance_session

logger = logging.getLogger("tenantry.celery")

SWEEP: Final = "tenantry.sweep"
_NO_TASK: Final = "no task of this name is registered with the application that sweeps"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep did: tasks handed to the broker again, and tasks given up as LOST."""

    dispatched: int
    lost: int


def sweep(
    app: Celery, *, limit: int = 500, engine: Engine | None = None, actor: str = "tenantry.sweep"
) -> Sweep:
    """See to every task whose deadline has passed, of whichever organization.

    A task that was not handed to the broker, or whose message has not arrived, is dispatched again,
    for its organization and user. One whose worker's lease is over is dispatched again if it is
    declared `acks_late`, which says that it bears a second execution, and has retries left;
    otherwise it is LOST. Several sweepers may run at once: each sees to other tasks.

    The tasks are found by the maintenance role, which is logged; they are published as themselves.

    Args:
        app: with `install_tenancy(…, records=…)`.
        limit: of tasks in one sweep.
        engine: of `create_maintenance_engine`; by default on MAINTENANCE_DATABASE_URL.
        actor: for the log.

    Raises:
        ConfigurationError: the application keeps no records.
        WrongRoleError: the login may not work across tenants.
    """
    ledger = tenancy_of(app).ledger
    if ledger is None:
        raise ConfigurationError(
            f"Celery application {app.main!r} keeps no task records: install_tenancy(records=…)"
        )
    with maintenance_session(reason="task sweeper", actor=actor, engine=engine) as session:
        seen = list(_claim(session, app, ledger, limit))
    lost = [claim for claim in seen if claim.error is not None]
    for claim in lost:
        logger.error(
            "task %s[%s] of %s is lost: %s", claim.name, claim.id, claim.tenant, claim.error
        )
        # Whoever waits for the result would wait for ever.
        app.backend.mark_as_failure(
            str(claim.id), WorkerLostError(claim.error), call_errbacks=False
        )
    sent = [dispatch(app, ledger, claim.tenant, claim.id) for claim in seen if claim.error is None]
    return Sweep(dispatched=sum(result is not None for result in sent), lost=len(lost))


def add_sweeper(app: Celery, *, every: float = 60.0) -> None:
    """Register the task `tenantry.sweep`, and have beat run it every so many seconds."""

    def run() -> dict[str, Any]:
        return asdict(sweep(app))

    app.task(name=SWEEP, base=BaseTask, shared=False, record=False)(tenant_free(run))
    entry = {"task": SWEEP, "schedule": every, "options": {"expires": every}}
    app.conf.beat_schedule = {**(app.conf.beat_schedule or {}), SWEEP: entry}


@dataclass(frozen=True, slots=True)
class _Claim:
    tenant: Tenant
    id: Any
    name: str
    error: str | None


def _claim(session: Session, app: Celery, ledger: Ledger, limit: int) -> Iterator[_Claim]:
    """Yield the tasks that are due, each moved on in the session's transaction."""
    model = ledger.model
    now = session.scalars(select(func.now())).one()
    records = session.scalars(
        select(model)
        .where(model.due_at <= now)
        .order_by(model.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    for record in records:
        error = _loss(app, record)
        if error is None:
            record.retries += record.state is TaskState.STARTED
            record.state = TaskState.QUEUED
            record.due_at = now + ledger.deadlines.queued
        else:
            _give_up(record, error, now)
        yield _Claim(Tenant(record.organization_id, record.user_id), record.id, record.name, error)


def _loss(app: Celery, record: TaskRecordMixin) -> str | None:
    """Return why a task that is due cannot be dispatched again; None if it can."""
    task = app.tasks.get(record.name)
    if task is None:
        return _NO_TASK
    if record.state is not TaskState.STARTED:
        return None
    vanished = f"its worker {record.worker} has vanished"
    if not task.acks_late:
        return f"{vanished}, and the task is not declared acks_late"
    if task.max_retries is not None and record.retries >= task.max_retries:
        return f"{vanished}, and so have those of {record.retries} attempts before"
    return None


def _give_up(record: TaskRecordMixin, error: str, now: datetime) -> None:
    record.state = TaskState.LOST
    record.error = error
    record.finished_at = now
    record.due_at = None

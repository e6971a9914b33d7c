"""Looking at tasks and deciding about them by their records, which every broker allows."""

import sys
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Final

from celery import Celery
from sqlalchemy import Engine, delete, func, or_, select, update
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import NullPool

from tenantry.celery.installation import tenancy_of
from tenantry.celery.launcher import dispatch
from tenantry.celery.ledger import Deadlines
from tenantry.celery.records import FINISHED, TaskRecordMixin, TaskState
from tenantry.celery.remote import FIND, TERMINATE
from tenantry.config import DEFAULT_CONFIG, Settings, TenancyConfig
from tenantry.context import Tenant, TenantId
from tenantry.diagnosis import sqlstate
from tenantry.environment import maintenance_url
from tenantry.exceptions import ConfigurationError, MissingMigrationsError
from tenantry.maintenance import create_maintenance_engine, maintenance_session
from tenantry.sessions import SessionLocal, tenant_scope

_REVOCABLE: Final = (
    TaskState.QUEUED,
    TaskState.DISPATCHED,
    TaskState.STARTED,
    TaskState.RETRY,
    TaskState.LOST,
)
_REPEATABLE: Final = (
    TaskState.DISPATCHED,
    TaskState.RETRY,
    TaskState.FAILURE,
    TaskState.REVOKED,
    TaskState.LOST,
)


class _Base(DeclarativeBase):
    """Base of the class that stands in where no application says what its records are."""


class _Record(TaskRecordMixin, _Base):
    __tablename__ = "task_records"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """Whose tasks are looked at: one organization's, or all, with a reason that is logged.

    Args:
        organization_id: None for all.
        reason: why all; kept in the log of work across tenants.
        actor: who; kept in it too.
        app: says what its records are, and publishes; None reads the table `task_records`.
    """

    organization_id: TenantId | None = None
    reason: str = ""
    actor: str = ""
    app: Celery | None = None

    @property
    def model(self) -> type[TaskRecordMixin]:
        """Return what the records are mapped to.

        Raises:
            ConfigurationError: the application keeps none.
        """
        if self.app is None:
            return _Record
        ledger = tenancy_of(self.app).ledger
        if ledger is None:
            raise ConfigurationError(f"Celery application {self.app.main!r} keeps no task records")
        return ledger.model

    @property
    def deadlines(self) -> Deadlines:
        """Return the deadlines of the application, or those that it has by default."""
        ledger = None if self.app is None else tenancy_of(self.app).ledger
        return Deadlines() if ledger is None else ledger.deadlines

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a Session that sees these tasks: committed at the end, or rolled back.

        Raises:
            MissingMigrationsError: the database has no such table.
        """
        sessions = SessionLocal if self.app is None else tenancy_of(self.app).sessions
        scope = (
            maintenance_session(reason=self.reason, actor=self.actor, engine=self._engine())
            if self.organization_id is None
            else tenant_scope(self.organization_id, sessions=sessions)
        )
        try:
            with scope as session:
                yield session
        except ProgrammingError as error:
            if sqlstate(error.orig) not in {"42P01", "42703"}:
                raise
            raise MissingMigrationsError(
                f"the task records cannot be read: {str(error.orig).partition(chr(10))[0]}. Run "
                "`alembic upgrade head`, or name the application that keeps them with --app"
            ) from error

    def _engine(self) -> Engine | None:
        """Return what connects as the application's maintenance role; None for the default."""
        config = _config_of(self.app)
        if config.maintenance_role == DEFAULT_CONFIG.maintenance_role:
            return None
        url = maintenance_url(Settings.from_environment())
        return create_maintenance_engine(url, config=config, poolclass=NullPool)


def parse_organization(app: Celery | None, text: str) -> TenantId:
    """Return an organization's id, of the type that the application's tenancy says.

    Raises:
        InvalidTenantError: the text is none.
    """
    return Tenant.parse(text, config=_config_of(app)).organization_id


def _config_of(app: Celery | None) -> TenancyConfig:
    return DEFAULT_CONFIG if app is None else tenancy_of(app).carrier.config


def load_app(name: str) -> Celery:
    """Return the Celery application that `module:attribute` names; the attribute may be left out.

    Raises:
        ConfigurationError: there is none.
    """
    module_name, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        app = getattr(import_module(module_name), attribute or "app")
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{name!r} names no Celery application: {error}. Write module:attribute, such as "
            "shop.worker:app"
        ) from error
    if not isinstance(app, Celery):
        raise ConfigurationError(f"{name!r} is a {type(app).__name__}, no Celery application")
    app.finalize()
    return app


def list_tasks(
    reach: Reach, *, states: Iterable[TaskState] = (), limit: int = 50
) -> Sequence[TaskRecordMixin]:
    """Return the latest tasks, the newest first."""
    model, wanted = reach.model, list(states)
    query = select(model).order_by(model.queued_at.desc(), model.id).limit(limit)
    if wanted:
        query = query.where(model.state.in_(wanted))
    with reach.session() as session:
        found = session.scalars(query).all()
        session.expunge_all()
    return found


def find_task(reach: Reach, task_id: uuid.UUID) -> TaskRecordMixin | None:
    """Return a task's record; another organization's is as good as none."""
    with reach.session() as session:
        found = session.scalars(select(reach.model).where(reach.model.id == task_id)).first()
        session.expunge_all()
    return found


def has_remote_control(app: Celery) -> bool:
    """Tell whether the application's broker can reach a running worker: PostgreSQL cannot."""
    with app.connection_for_write() as connection:
        return "fanout" in connection.transport.implements.exchange_type


def locate(reach: Reach, record: TaskRecordMixin, *, timeout: float = 1.0) -> dict[str, str]:
    """Ask the workers for an organization's task: which has it, and whether it runs there.

    Args:
        reach: with the application; without one, or remote control, nobody can be asked.
        record: the task's.
        timeout: seconds to wait for answers.
    """
    app = reach.app
    if app is None or not has_remote_control(app):
        return {}
    task_id = record.payload["options"].get("task_id", str(record.id))
    arguments = {"task_ids": [task_id], "organization_id": str(record.organization_id)}
    replies = app.control.broadcast(FIND, arguments=arguments, reply=True, timeout=timeout)
    return {
        worker: answer[task_id]
        for reply in replies
        for worker, answer in reply.items()
        if task_id in answer
    }


def revoke(
    reach: Reach, task_ids: Sequence[uuid.UUID], *, terminate: bool = False
) -> list[uuid.UUID]:
    """Note tasks as REVOKED, so that no worker begins them; those that have ended stay as they are.

    A running task is not stopped, but neither retried, unless it is terminated.

    Args:
        reach: whose tasks.
        task_ids: which of them.
        terminate: end those that run, which takes a broker with remote control.

    Returns:
        The ids of those that were revoked.

    Raises:
        ConfigurationError: `terminate` without an application, or its broker has no remote control;
            nothing was revoked.
    """
    app = reach.app
    if terminate and (app is None or not has_remote_control(app)):
        raise ConfigurationError(
            "a running task can be terminated only with --app and a broker with remote control "
            "(Redis, RabbitMQ); nothing was revoked"
        )
    model = reach.model
    with reach.session() as session:
        revoked = session.execute(
            update(model)
            .where(model.id.in_(task_ids), model.state.in_(_REVOCABLE))
            .values(
                state=TaskState.REVOKED,
                finished_at=func.now(),
                due_at=None,
                error="revoked by command",
            )
            .returning(model.id, model.organization_id)
            .execution_options(synchronize_session=False)
        ).all()
    if app is not None and terminate:
        for organization_id in {row.organization_id for row in revoked}:
            ids = [str(row.id) for row in revoked if row.organization_id == organization_id]
            arguments = {"task_ids": ids, "organization_id": str(organization_id)}
            app.control.broadcast(TERMINATE, arguments=arguments)
    return [row.id for row in revoked]


def requeue(reach: Reach, task_ids: Sequence[uuid.UUID]) -> list[uuid.UUID]:
    """Run tasks once more, from the beginning: failed, revoked, lost, or stuck on their way.

    With an application they are handed to the broker at once, otherwise by the next sweep.

    Returns:
        The ids of those that are queued now.
    """
    model, app = reach.model, reach.app
    with reach.session() as session:
        queued = session.execute(
            update(model)
            .where(model.id.in_(task_ids), model.state.in_(_REPEATABLE))
            .values(
                state=TaskState.QUEUED,
                retries=0,
                eta=None,
                due_at=func.now(),
                finished_at=None,
                error=None,
            )
            .returning(model.id, model.organization_id, model.user_id)
            .execution_options(synchronize_session=False)
        ).all()
    ledger = None if app is None else tenancy_of(app).ledger
    if app is not None and ledger is not None:
        for row in queued:
            dispatch(app, ledger, Tenant(row.organization_id, row.user_id), row.id)
    return [row.id for row in queued]


def purge(reach: Reach, *, older_than: timedelta, states: Iterable[TaskState] = ()) -> int:
    """Delete the records of tasks that ended so long ago, and return how many.

    That of a revoked task stays until its message is due no more: `Deadlines.delivered` after it
    was revoked, or after the time that the task was meant for.

    Raises:
        ConfigurationError: a state is named in which a task has not ended.
    """
    wanted = set(states) or set(FINISHED)
    if not wanted <= FINISHED:
        unfinished = ", ".join(sorted(wanted - FINISHED))
        raise ConfigurationError(f"tasks that have not ended cannot be purged: {unfinished}")
    model, delivered = reach.model, reach.deadlines.delivered
    # greatest() leaves out what is NULL.
    settled = func.greatest(model.finished_at, model.eta) + delivered < func.now()
    with reach.session() as session:
        deleted = session.scalars(
            delete(model)
            .where(
                model.state.in_(sorted(wanted)),
                model.finished_at < func.now() - older_than,
                or_(model.state != TaskState.REVOKED, settled),
            )
            .returning(model.id)
            .execution_options(synchronize_session=False)
        ).all()
    return len(deleted)

"""Writes task records: each change is one statement, as the task's tenant, under the wall."""

import enum
import logging
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, and_, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tenantry.celery.records import (
    FINAL,
    TaskRecordMixin,
    TaskState,
    digest_arguments,
    record_id,
)
from tenantry.celery.statements import Statements, later
from tenantry.context import Tenant
from tenantry.diagnosis import sqlstate
from tenantry.exceptions import DatabaseUnreachableError
from tenantry.sessions import tenant_scope

logger = logging.getLogger("tenantry.celery")

_T = TypeVar("_T")

# A restart of the database takes seconds; a task's outcome is worth waiting for that long.
_PAUSES: Final = (0.1, 0.4, 1.5, 3.0)

_WITHOUT_SYNC: Final = {"synchronize_session": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Deadlines:
    """How long a task may stay where it is before the sweeper sees to it.

    Args:
        queued: until it must have been handed to the broker.
        delivered: from its dispatch, or the time it is meant for, until it must have started; past
            this its message counts as lost. A message that only waits in a long queue is then sent
            a second time, and the second to arrive is not executed.
        lease: for which a running task is known to run. Its process renews it three times as
            often; when the process is gone, the lease runs out.
    """

    queued: timedelta = timedelta(seconds=30)
    delivered: timedelta = timedelta(minutes=15)
    lease: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Attempt:
    """One execution of one task, as its message describes it."""

    tenant: Tenant
    task_id: str
    name: str
    retries: int = 0
    worker: str | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> uuid.UUID:
        """Return the id of the task's record."""
        return record_id(self.task_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """What a record says about how to publish its task."""

    task_id: str
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    options: dict[str, Any]


class Entry(enum.Enum):
    """What the record says to a worker that wants to start the task."""

    GRANTED = "granted"
    FINISHED = "finished"
    RUNNING = "running"
    SUPERSEDED = "superseded"
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The record's answer to a worker; `seconds` is what is left of a running task's lease."""

    entry: Entry
    state: TaskState = TaskState.STARTED
    error: str | None = None
    seconds: float = 0.0


class Ledger:
    """The task records of one application."""

    def __init__(
        self,
        model: type[TaskRecordMixin],
        sessions: Callable[[], Session],
        deadlines: Deadlines,
    ) -> None:
        """Keep what the records are mapped to, and how they are reached."""
        self.model = model
        self.sessions = sessions
        self.deadlines = deadlines
        self._statements = Statements(
            model, queued=deadlines.queued, delivered=deadlines.delivered, lease=deadlines.lease
        )

    def file(self, session: Session, attempt: Attempt, *, eta: datetime | None) -> bool:
        """Add the record of a task that is about to be launched, in the session's transaction.

        Returns:
            Whether it was added; a task of this id may have been launched before.

        Raises:
            TypeError: an argument cannot be written as JSON; nothing was sent to the database.
        """
        described = self._description(attempt) | {"eta": eta}
        return session.scalar(self._statements.file, described) is not None

    def dispatch(
        self, tenant: Tenant, task_id: uuid.UUID, publish: Callable[[Publication], _T]
    ) -> _T | None:
        """Publish a task whose record is QUEUED, and note that it was.

        The record is committed as DISPATCHED once `publish` has returned: if that raises, it stays
        QUEUED. Of several who try at once one succeeds.

        Returns:
            What `publish` returned; None without such a record: a rolled back launch has left none.
        """
        with self._scope(tenant) as session:
            publication = self._take(session, task_id)
            return None if publication is None else publish(publication)

    def release(self, tenant: Tenant, task_id: uuid.UUID) -> Publication | None:
        """Note a task as DISPATCHED, committed, for a caller that executes it at once."""
        with self._scope(tenant) as session:
            return self._take(session, task_id)

    def start(self, attempt: Attempt, *, recorded: bool = False) -> Admission:
        """Note that an execution begins, unless the record says that it must not.

        A task without a record gets one, unless its message says that it had one: that was purged.
        A task in a final state is not executed again; nor is one whose worker holds a lease, or
        whose message is older than the retry that is due.
        """
        return self._persist(lambda: self._start(attempt, recorded))

    def finish(
        self,
        attempt: Attempt,
        state: TaskState,
        *,
        runtime: float | None = None,
        error: str | None = None,
        correct: bool = False,
    ) -> bool:
        """Note the outcome of an execution; what is final stays as it is.

        A success counts even if the task was given up meanwhile; a failure counts if no other
        execution has begun.

        Args:
            attempt: the execution.
            state: SUCCESS, FAILURE or REVOKED.
            runtime: in seconds.
            error: what went wrong.
            correct: replace SUCCESS, where what came after the task's own code failed.
        """
        parameters: dict[str, Any] = {
            "record": attempt.id,
            "outcome": state,
            "seconds": runtime,
            "fault": error,
        }
        statement = self._statements.finish
        if correct or state is TaskState.FAILURE:
            statement = self._statements.correct if correct else self._statements.fail
            parameters["attempt"] = attempt.retries

        def note() -> bool:
            with self._scope(attempt.tenant) as session:
                return session.scalar(statement, parameters) is not None

        return self._persist(note)

    def defer(
        self, attempt: Attempt, *, until: datetime | None, error: str, runtime: float
    ) -> bool:
        """Note that an execution ended in a retry, whose message is on its way."""
        return self._change(
            attempt,
            self._is_running(attempt),
            state=TaskState.RETRY,
            retries=attempt.retries + 1,
            eta=until,
            due_at=later(until) + self.deadlines.delivered,
            runtime=runtime,
            error=error,
        )

    def return_(self, attempt: Attempt) -> bool:
        """Note that the execution ended with the task's message going back to the broker."""
        return self._change(
            attempt,
            self._is_running(attempt),
            state=TaskState.DISPATCHED,
            due_at=func.now() + self.deadlines.delivered,
        )

    def renew(self, attempt: Attempt) -> bool:
        """Renew the lease of a running task; a database that does not answer is not waited for."""
        with self._scope(attempt.tenant) as session:
            return self._changed(
                session,
                attempt,
                self._is_running(attempt),
                due_at=func.now() + self.deadlines.lease,
            )

    def _start(self, attempt: Attempt, recorded: bool) -> Admission:
        model = self.model
        parameters = {"record": attempt.id, "attempt": attempt.retries, "host": attempt.worker}
        begun = {
            "state": TaskState.STARTED,
            "started_at": func.now(),
            "retries": attempt.retries,
            "worker": attempt.worker,
            "due_at": func.now() + self.deadlines.lease,
        }
        with self._scope(attempt.tenant) as session:
            if session.scalar(self._statements.start, parameters) is not None:
                return Admission(entry=Entry.GRANTED)
            added = None
            if not recorded:
                added = session.scalar(
                    insert(model)
                    .values(**self._description(attempt) | begun)
                    .on_conflict_do_nothing()
                    .returning(model.id)
                )
            if added is not None:
                return Admission(entry=Entry.GRANTED)
            found = session.execute(
                select(
                    model.state,
                    model.error,
                    model.due_at,
                    func.clock_timestamp(),
                    model.retries,
                ).where(model.id == attempt.id)
            ).one_or_none()
        if found is None:
            return Admission(entry=Entry.GONE)
        state, error, due_at, now, retries = found
        if state in FINAL:
            return Admission(entry=Entry.FINISHED, state=state, error=error)
        if state is TaskState.STARTED and retries == attempt.retries:
            left = max((due_at - now).total_seconds(), 0.0)
            return Admission(entry=Entry.RUNNING, seconds=left)
        return Admission(entry=Entry.SUPERSEDED, state=state)

    def _take(self, session: Session, task_id: uuid.UUID) -> Publication | None:
        row = session.execute(self._statements.take, {"record": task_id}).one_or_none()
        if row is None:
            return None
        options = dict(row.payload["options"])
        if row.retries:
            options["retries"] = row.retries
        if row.eta is not None and row.eta > datetime.now(UTC):
            options["eta"] = row.eta
        return Publication(
            task_id=options.pop("task_id", str(task_id)),
            name=row.name,
            args=tuple(row.payload["args"]),
            kwargs=row.payload["kwargs"],
            options=options,
        )

    def _description(self, attempt: Attempt) -> dict[str, Any]:
        options = dict(attempt.options)
        if str(attempt.id) != attempt.task_id:
            options["task_id"] = attempt.task_id
        # The organization is filled in by whichever wall there is, from the session's tenant.
        return {
            "id": attempt.id,
            "user_id": attempt.tenant.user_id,
            "name": attempt.name,
            "args_digest": digest_arguments(attempt.args, attempt.kwargs),
            "payload": {
                "args": list(attempt.args),
                "kwargs": attempt.kwargs,
                "options": options,
            },
        }

    def _is_running(self, attempt: Attempt) -> ColumnElement[bool]:
        return and_(self.model.state == TaskState.STARTED, self.model.retries == attempt.retries)

    def _change(self, attempt: Attempt, where: ColumnElement[bool], **values: Any) -> bool:
        def change() -> bool:
            with self._scope(attempt.tenant) as session:
                return self._changed(session, attempt, where, **values)

        return self._persist(change)

    def _changed(
        self, session: Session, attempt: Attempt, where: ColumnElement[bool], **values: Any
    ) -> bool:
        changed = session.scalar(
            update(self.model)
            .where(self.model.id == attempt.id, where)
            .values(**values)
            .returning(self.model.id)
            .execution_options(**_WITHOUT_SYNC)
        )
        return changed is not None

    @contextmanager
    def _scope(self, tenant: Tenant) -> Iterator[Session]:
        with tenant_scope(
            tenant.organization_id, tenant.user_id, sessions=self.sessions
        ) as session:
            yield session

    def _persist(self, write: Callable[[], _T]) -> _T:
        """Run a write, and run it again while the database is being restarted."""
        for pause in _PAUSES:
            try:
                return write()
            except (DBAPIError, DatabaseUnreachableError) as error:
                if not is_transient(error):
                    raise
                logger.info("a task record could not be written, trying again: %s", error)
            time.sleep(pause)
        return write()


def is_transient(error: BaseException) -> bool:
    """Tell whether a write failed for want of a connection, so that it may work later."""
    if isinstance(error, DBAPIError):
        # 57P: the server shuts down, crashed or starts up; 08: connection exceptions.
        code = sqlstate(error.orig) or ""
        return error.connection_invalidated or code[:2] in {"08", "57"}
    return isinstance(error, DatabaseUnreachableError)

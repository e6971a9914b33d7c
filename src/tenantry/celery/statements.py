"""The statements of a task's way through its record, each built once for an application.

A record is written four times for each task: what SQLAlchemy would build anew every time takes
longer than PostgreSQL takes to execute it.
"""

import functools
from datetime import datetime, timedelta
from typing import Any, Final, cast

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    DateTime,
    Interval,
    Table,
    and_,
    bindparam,
    func,
    inspect,
    literal,
    or_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.dml import ReturningInsert, ReturningUpdate

from tenantry.celery.records import FINAL, TaskRecordMixin, TaskState

_WAITING: Final = (TaskState.QUEUED, TaskState.DISPATCHED, TaskState.RETRY, TaskState.LOST)


def later(moment: object) -> ColumnElement[datetime]:
    """Return the moment in SQL, or now if that is later; NULL is now."""
    return func.greatest(func.now(), moment, type_=DateTime(timezone=True))


class Statements:
    """What a ledger executes for each task; `record`, `attempt` and the like are its parameters."""

    def __init__(
        self,
        model: type[TaskRecordMixin],
        *,
        queued: timedelta,
        delivered: timedelta,
        lease: timedelta,
    ) -> None:
        """Take what the records are mapped to, and the deadlines of each stage."""
        self._table = cast("Table", inspect(model).local_table)
        self._queued = literal(queued, Interval)
        self._delivered = literal(delivered, Interval)
        self._lease = literal(lease, Interval)

    @functools.cached_property
    def file(self) -> ReturningInsert[Any]:
        """Add the record that the parameters describe, if its task id is new."""
        return (
            insert(self._table)
            .values(due_at=func.now() + self._queued)
            .on_conflict_do_nothing()
            .returning(self._table.c.id)
        )

    @functools.cached_property
    def take(self) -> ReturningUpdate[Any]:
        """Note the `record` as DISPATCHED if it is QUEUED, and return how to publish it."""
        table = self._table
        return (
            update(table)
            .where(table.c.id == bindparam("record"), table.c.state == TaskState.QUEUED)
            .values(
                state=TaskState.DISPATCHED,
                dispatched_at=func.now(),
                due_at=later(table.c.eta) + self._delivered,
            )
            .returning(table.c.name, table.c.payload, table.c.retries, table.c.eta)
        )

    @functools.cached_property
    def start(self) -> ReturningUpdate[Any]:
        """Note the `record` as begun by the `host` with this `attempt`, unless it must not be."""
        column = self._table.c
        attempt: BindParameter[int] = bindparam("attempt")
        waiting = and_(column.state.in_(_WAITING), column.retries <= attempt)
        abandoned = and_(
            column.state == TaskState.STARTED,
            or_(
                column.retries < attempt,
                and_(column.retries == attempt, column.due_at <= func.now()),
            ),
        )
        return (
            update(self._table)
            .where(column.id == bindparam("record"), or_(waiting, abandoned))
            .values(
                state=TaskState.STARTED,
                started_at=func.now(),
                finished_at=None,
                retries=attempt,
                worker=bindparam("host"),
                due_at=func.now() + self._lease,
            )
            .returning(column.id)
        )

    @functools.cached_property
    def finish(self) -> ReturningUpdate[Any]:
        """Note the `outcome` of an execution, which took `seconds`, and its `fault`."""
        return self._finish(FINAL)

    @functools.cached_property
    def fail(self) -> ReturningUpdate[Any]:
        """Note a failure, if no execution later than this `attempt` has begun."""
        return self.finish.where(self._table.c.retries <= bindparam("attempt"))

    @functools.cached_property
    def correct(self) -> ReturningUpdate[Any]:
        """Note a failure of what came after the task's own code, which had succeeded."""
        unless = FINAL - {TaskState.SUCCESS}
        return self._finish(unless).where(self._table.c.retries <= bindparam("attempt"))

    def _finish(self, unless: frozenset[TaskState]) -> ReturningUpdate[Any]:
        column = self._table.c
        return (
            update(self._table)
            .where(column.id == bindparam("record"), column.state.not_in(sorted(unless)))
            .values(
                state=bindparam("outcome"),
                finished_at=func.now(),
                runtime=bindparam("seconds"),
                error=bindparam("fault"),
                due_at=None,
            )
            .returning(column.id)
        )

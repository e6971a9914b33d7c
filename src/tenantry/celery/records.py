"""The record of a task: what was launched for whom, and what became of it."""

import enum
import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from kombu.utils.json import dumps, loads
from sqlalchemy import DateTime, Float, Integer, Text, TypeDecorator, Uuid, func
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.models import TenantMixin
from tenantry.types import text_enum


class TaskState(enum.StrEnum):
    """Where a task stands.

    SUCCESS, FAILURE and REVOKED are final: a message for such a task is not executed. LOST is said
    of a task whose worker vanished and which is not known to bear a second execution; `tenantry
    tasks requeue` runs it again.
    """

    QUEUED = "queued"
    DISPATCHED = "dispatched"
    STARTED = "started"
    RETRY = "retry"
    SUCCESS = "success"
    FAILURE = "failure"
    REVOKED = "revoked"
    LOST = "lost"


FINAL: Final = frozenset({TaskState.SUCCESS, TaskState.FAILURE, TaskState.REVOKED})
FINISHED: Final = FINAL | {TaskState.LOST}

_ERROR_CHARACTERS: Final = 500


class TaskPayload(TypeDecorator[dict[str, Any]]):
    """What it takes to publish a task again: args, kwargs and options, as Celery's JSON.

    Text rather than jsonb, which refuses strings and numbers that a message may hold.
    """

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: dict[str, Any] | None, _dialect: Dialect) -> str | None:
        """Return the text that is stored."""
        return None if value is None else str(dumps(value))

    def process_result_value(self, value: str | None, _dialect: Dialect) -> dict[str, Any] | None:
        """Return the values as they were given."""
        return None if value is None else dict(loads(value))


class TaskRecordMixin(TenantMixin):
    """Gives a tenant table the columns of a task's record; its id is the task's id.

    The table wants two indexes: (organization_id, queued_at, id) to list an organization's tasks,
    and (organization_id, due_at) where due_at is not null, which holds the unfinished tasks alone
    and which the sweeper reads from end to end.

    It also wants a foreign key from its tenant column to the root table, with ON DELETE CASCADE:
    only with that does launching a task for an organization that does not exist raise
    UnknownTenantError.

    Attributes:
        user_id: for whom; without a foreign key, since it is told of users that are gone, too.
        args_digest: SHA-256 of the arguments: equal for equal arguments.
        payload: `args`, `kwargs` and `options`, to publish the task from.
        eta: before which it does not start.
        due_at: when the sweeper sees to it, if nothing has happened by then; NULL once there is
            nothing to see to. While the task runs it is the end of its worker's lease.
        runtime: of the last execution, in seconds.
        retries: how often it was tried before the execution that is due or the last one.
        error: first line of what went wrong last.
    """

    name: Mapped[str] = mapped_column(Text)
    user_id: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    state: Mapped[TaskState] = mapped_column(
        text_enum(TaskState, "state"), server_default=TaskState.QUEUED.value
    )
    args_digest: Mapped[str] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(TaskPayload)
    eta: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    due_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    queued_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.clock_timestamp()
    )
    dispatched_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    started_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    finished_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    runtime: Mapped[float | None] = mapped_column(Float)
    retries: Mapped[int] = mapped_column(Integer, server_default="0")
    worker: Mapped[str | None] = mapped_column(Text)
    error: Mapped[str | None] = mapped_column(Text)
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now(), sort_order=91
    )


def record_id(task_id: str) -> uuid.UUID:
    """Return the id of a task's record: the task's own, or one made from it if it is no UUID."""
    try:
        return uuid.UUID(task_id)
    except ValueError:
        return uuid.uuid5(uuid.NAMESPACE_URL, task_id)


def digest_arguments(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a task's arguments, in hexadecimal digits.

    Raises:
        TypeError: an argument cannot be written as JSON.
    """
    # As a message would carry them: keys that are numbers become text before they are sorted.
    carried = json.loads(dumps([list(args), dict(kwargs)]))
    content = json.dumps(carried, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def summarize(error: BaseException) -> str:
    """Return the kind and the first line of an error, cut where it is long."""
    line = str(error).strip().partition("\n")[0].replace("\x00", "")
    text = f"{type(error).__name__}: {line}" if line else type(error).__name__
    # In ASCII, since it is stored: a database's encoding may lack any other mark.
    return text if len(text) <= _ERROR_CHARACTERS else f"{text[: _ERROR_CHARACTERS - 3]}..."

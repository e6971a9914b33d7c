"""Background tasks by their records, which row-level security shows to their organization alone."""

import uuid
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from assay.exceptions import ReusedKeyError, UnknownTaskError
from assay.models import TaskRecord
from tenantry.celery import TaskState

_ENDED: Final = (TaskState.SUCCESS, TaskState.FAILURE, TaskState.REVOKED, TaskState.LOST)

CANCELLED: Final = "cancelled by a user"
"""Why a task or a run ended, where somebody asked for it."""


def find_task(session: Session, task_id: uuid.UUID) -> TaskRecord | None:
    """Return a task's record; None if the Session's organization has none of this id."""
    return session.scalars(select(TaskRecord).where(TaskRecord.id == task_id)).one_or_none()


def get_task(session: Session, task_id: uuid.UUID) -> TaskRecord:
    """Return a task's record.

    Raises:
        UnknownTaskError: the Session's organization has none of this id, whoever else may have one.
    """
    found = find_task(session, task_id)
    if found is None:
        raise UnknownTaskError("there is no such task")
    return found


def revoke_task(session: Session, task_id: uuid.UUID) -> bool:
    """Note a task as revoked, so that no worker begins it or retries it.

    Returns:
        Whether it was; one that has ended stays as it is.
    """
    revoked = session.scalar(
        update(TaskRecord)
        .where(TaskRecord.id == task_id, TaskRecord.state.not_in(_ENDED))
        .values(
            state=TaskState.REVOKED,
            finished_at=func.now(),
            due_at=None,
            error=CANCELLED,
        )
        .returning(TaskRecord.id)
        .execution_options(synchronize_session=False)
    )
    return revoked is not None


def keyed_task_id(organization_id: uuid.UUID, user_id: uuid.UUID, key: str) -> uuid.UUID:
    """Return the id of the task that this user launches with this key.

    Nobody else's key gives it, so that the primary key of the task's record is all that it takes
    for a key to launch one task.
    """
    return uuid.uuid5(organization_id, f"{user_id} {key}")


def check_launch(record: TaskRecord, name: str, *args: object) -> None:
    """Return if the record is that of this task with these arguments.

    Raises:
        ReusedKeyError: it is another's, launched with the same key.
    """
    if record.name != name or record.payload["args"] != list(args):
        raise ReusedKeyError("this Idempotency-Key was used for another request: choose a new one")

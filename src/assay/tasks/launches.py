"""Launching a run for whoever asks, following its task, and cancelling it."""

import uuid
from typing import Any

from celery.states import SUCCESS
from kombu.exceptions import KombuError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from assay.exceptions import EndedError, ResultUnreachableError
from assay.models import TaskRecord
from assay.services import runs
from assay.services.authentication import Principal
from assay.services.configurations import get_configuration
from assay.services.tasks import (
    CANCELLED,
    check_launch,
    find_task,
    get_task,
    keyed_task_id,
    revoke_task,
)
from assay.tasks.runs import execute_test_configuration
from assay.worker import app
from tenantry.celery import task_launcher


def launch_run(
    db: Session, user: Principal, configuration_id: uuid.UUID, key: str | None = None
) -> uuid.UUID:
    """Launch a run when the Session commits, and return its task's id.

    The same user's same key launches once, however often and however many at once ask: all get the
    id of the one task, as long as its record is kept.

    Raises:
        UnknownConfigurationError: the organization has no such configuration.
        ReusedKeyError: the key has launched another configuration.
    """
    task = execute_test_configuration
    argument = str(configuration_id)
    if key is None:
        task_id = uuid.uuid4()
    else:
        task_id = keyed_task_id(user.organization_id, user.id, key)
        earlier = find_task(db, task_id)
        if earlier is not None:
            check_launch(earlier, task.name, argument)
            return task_id
    get_configuration(db, configuration_id)
    task_launcher(task, argument, current_user=user, db=db, task_id=task_id)
    # Another request with the key may have been first; then the record is that one's.
    check_launch(get_task(db, task_id), task.name, argument)
    return task_id


def result_of(record: TaskRecord) -> tuple[bool, Any]:
    """Return whether Celery has the result of a task that succeeded, and the result.

    Only with a record that row-level security has shown: Celery's results know no tenants.

    Raises:
        ResultUnreachableError: the results' store does not answer.
    """
    result = app.AsyncResult(record.payload["options"].get("task_id", str(record.id)))
    unreachable = (
        OSError,
        KombuError,
        SQLAlchemyError,
        *getattr(app.backend, "connection_errors", ()),
    )
    try:
        return (True, result.result) if result.state == SUCCESS else (False, None)
    except unreachable as error:
        raise ResultUnreachableError(f"the store of results does not answer: {error}") from error


def cancel_task(db: Session, organization_id: uuid.UUID, task_id: uuid.UUID) -> TaskRecord:
    """Keep a task from being begun or retried, cancel the run that it launches, and return it.

    Raises:
        UnknownTaskError: the organization has no such task.
        EndedError: the task has ended, and so has its run, if it is of one.
    """
    record = get_task(db, task_id)
    revoked = revoke_task(db, task_id)
    cancelled = record.name == execute_test_configuration.name and runs.cancel_run_of(
        db,
        organization_id=organization_id,
        task_id=task_id,
        configuration_id=uuid.UUID(record.payload["args"][0]),
        reason=CANCELLED,
        # Of a task under way, the run may be about to begin.
        prevent=revoked,
    )
    if not revoked and not cancelled:
        raise EndedError("the task has ended, there is nothing left to cancel")
    db.refresh(record)
    return record

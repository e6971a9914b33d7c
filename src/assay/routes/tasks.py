"""`/tasks`: the background tasks that the token's organization has launched."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Final

from fastapi import APIRouter

from assay.authentication import CurrentUser, TenantSession
from assay.models import TaskRecord
from assay.routes.problems import problems
from assay.schemas.tasks import TaskOut
from assay.services.tasks import get_task
from assay.tasks import launches
from tenantry.celery import TaskState

router = APIRouter(prefix="/tasks", tags=["tasks"])

# A worker writes the record first and the result right after it.
_RESULT_DUE: Final = timedelta(seconds=30)


@router.get("/{task_id}", response_model=TaskOut, responses=problems(404))
def show_task(db: TenantSession, task_id: uuid.UUID) -> TaskOut:
    """Show where a task stands, and its result once it has succeeded.

    The task that launches a run succeeds when the run's tests are sent out: its result has the
    run's id, to be followed at `/test_runs/{run_id}`.
    """
    return _shown(get_task(db, task_id))


@router.post("/{task_id}/cancel", response_model=TaskOut, responses=problems(404, 409))
def cancel_task(db: TenantSession, user: CurrentUser, task_id: uuid.UUID) -> TaskOut:
    """Cancel a task, and the run that it launches; tests under way are not filed any more."""
    return _shown(launches.cancel_task(db, user.organization_id, task_id))


def _shown(record: TaskRecord) -> TaskOut:
    state, finished_at, result = record.state, record.finished_at, None
    if state is TaskState.SUCCESS:
        found, result = launches.result_of(record)
        if not found and finished_at is not None and datetime.now(UTC) - finished_at < _RESULT_DUE:
            # Who sees a success may take its result for granted.
            state, finished_at = TaskState.STARTED, None
    return TaskOut(
        task_id=record.id,
        status=state,
        result=result,
        error=record.error,
        queued_at=record.queued_at,
        started_at=record.started_at,
        finished_at=finished_at,
    )

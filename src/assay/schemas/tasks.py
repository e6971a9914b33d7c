"""Background tasks as the API shows them."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field

from assay.schemas.base import Output, example
from tenantry.celery import TaskState

_EXAMPLE: Final = {
    "task_id": "c5b5a9a4-6f6e-5b0e-8b76-9d0f0d9f7b10",
    "status": "success",
    "result": {"run_id": "1f0c3c1a-5f1e-4a73-8d0a-0b6a1f5c2d90", "sent": 817},
    "error": None,
    "queued_at": "2026-11-22T12:00:00Z",
    "started_at": "2026-11-22T12:00:01Z",
    "finished_at": "2026-11-22T12:00:03Z",
}


class TaskOut(Output):
    """A background task: where it stands, and what came of it."""

    model_config = example(_EXAMPLE)

    task_id: uuid.UUID
    status: Annotated[
        TaskState,
        Field(description="success, failure and revoked are final; lost: its worker is gone."),
    ]
    result: Annotated[
        Any, Field(description="Of a task that succeeded, for a day; of a launched run its id.")
    ]
    error: Annotated[str | None, Field(description="What went wrong last.")]
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

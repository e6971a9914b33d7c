"""Runs and their results as the API shows them."""

import uuid
from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from assay.models import RunStatus, Verdict
from assay.schemas.base import Next, Output, PageQuery, example

_RUN: Final = {
    "id": "1f0c3c1a-5f1e-4a73-8d0a-0b6a1f5c2d90",
    "status": "completed",
    "test_configuration_id": "4d2f6a36-93c0-4d7e-8f47-0a0f2b8f1c11",
    "task_id": "c5b5a9a4-6f6e-5b0e-8b76-9d0f0d9f7b10",
    "started_by_id": "9a7e7c8e-0c1d-4c3b-8f6a-2f8d1b5e6a70",
    "error": None,
    "created_at": "2026-11-22T12:00:01Z",
    "started_at": "2026-11-22T12:00:01Z",
    "finished_at": "2026-11-22T12:01:10Z",
}


class RunOut(Output):
    """One execution of a configuration.

    completed: every test was executed; partial: some could not be; failed: none could.
    """

    model_config = example(_RUN)

    id: uuid.UUID
    status: RunStatus
    test_configuration_id: Annotated[uuid.UUID | None, Field(description="Null once deleted.")]
    task_id: uuid.UUID | None
    started_by_id: uuid.UUID | None
    error: Annotated[
        str | None, Field(description="Why it failed or was cancelled, where results do not say.")
    ]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunPage(Output):
    """A part of the list of runs, oldest first."""

    items: list[RunOut]
    next: Next


class SummaryOut(Output):
    """How many tests passed, failed, could not be executed, and have no result yet."""

    passed: int
    failed: int
    errors: int
    missing: int


class RunDetail(RunOut):
    """One execution of a configuration, with its counts."""

    model_config = example(
        _RUN | {"summary": {"passed": 740, "failed": 77, "errors": 0, "missing": 0}}
    )

    summary: SummaryOut


class ResultQuery(PageQuery):
    """Which part of a run's results."""

    verdict: Annotated[Verdict | None, Field(description="These alone.")] = None


class ResultOut(Output):
    """What came of one test of a run."""

    model_config = example(
        {
            "id": "7b8f0c9e-16c4-4df4-9a4f-9a1f7a0b2c3d",
            "test_id": "0c5d3b0e-7d5a-4b8c-9a8f-4b0f1f2d3c4b",
            "prompt": "What is the capital of France?",
            "verdict": "pass",
            "received": "It is Paris.",
            "error": None,
            "duration_ms": 412,
            "created_at": "2026-11-22T12:00:02Z",
        }
    )

    id: uuid.UUID
    test_id: uuid.UUID
    prompt: Annotated[str, Field(description="As it reads now.")]
    verdict: Annotated[Verdict, Field(description="error: the test could not be executed.")]
    received: str | None
    error: str | None
    duration_ms: int | None
    created_at: datetime


class ResultPage(Output):
    """A part of a run's results, oldest first."""

    items: list[ResultOut]
    next: Next

"""Tests as the API takes and shows them."""

import uuid
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import Field

from assay.models import Metric
from assay.schemas.base import Input, Next, Output, Text, example

_EXAMPLE: Final = {
    "id": "0c5d3b0e-7d5a-4b8c-9a8f-4b0f1f2d3c4b",
    "prompt": "What is the capital of France?",
    "expected": ["Paris"],
    "metric": "contains",
    "category": "Europe",
    "reference": None,
    "created_at": "2026-11-22T12:00:00Z",
    "updated_at": "2026-11-22T12:00:00Z",
}

Prompt = Annotated[Text, Field(min_length=1, description="What is asked.")]
Expected = Annotated[
    list[Text],
    Field(min_length=1, max_length=100, description="One of them is enough to pass."),
]


class TestOut(Output):
    """A question, and the answers that count as right."""

    model_config = example(_EXAMPLE)

    id: uuid.UUID
    prompt: str
    expected: list[str]
    metric: Metric
    category: str | None
    reference: str | None
    created_at: datetime
    updated_at: datetime


class TestPage(Output):
    """A part of a set's tests, in the set's order."""

    items: list[TestOut]
    next: Next


class TestCreate(Input):
    """A new test, at the end of its set."""

    model_config = example(
        {
            "prompt": "What is the capital of France?",
            "expected": ["Paris"],
            "metric": "contains",
            "category": "Europe",
        }
    )

    prompt: Prompt
    expected: Expected
    metric: Metric = Metric.EXACT
    category: Text | None = None
    reference: Text | None = None


class TestChange(Input):
    """What is to change of a test; what is left out stays, and null takes away."""

    model_config = example({"expected": ["Paris", "Paris, France"], "metric": "any_of"})

    prompt: Prompt | None = None
    expected: Expected | None = None
    metric: Metric | None = None
    category: Text | None = None
    reference: Text | None = None

    def given(self) -> dict[str, Any]:
        """Return what is to change; what a test must have is not taken away by null."""
        needed = {"prompt", "expected", "metric"}
        fields = self.model_dump(exclude_unset=True)
        return {k: v for k, v in fields.items() if v is not None or k not in needed}

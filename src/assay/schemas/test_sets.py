"""Sets of tests as the API takes and shows them."""

import uuid
from datetime import datetime
from typing import Annotated

from pydantic import Field

from assay.models import Metric
from assay.schemas.base import Input, Name, Next, Output, Text, example

_EXAMPLE = {
    "id": "6f1d9d5c-3a6b-4a57-8a43-0e2c6c1d7a55",
    "name": "Capitals",
    "description": "Cities and their countries",
    "created_at": "2026-11-22T12:00:00Z",
    "updated_at": "2026-11-22T12:00:00Z",
}


class SetOut(Output):
    """A set of tests."""

    model_config = example(_EXAMPLE)

    id: uuid.UUID
    name: str
    description: str
    created_at: datetime
    updated_at: datetime


class SetPage(Output):
    """A part of the list of sets, oldest first."""

    items: list[SetOut]
    next: Next


class SetCreate(Input):
    """A new, empty set."""

    model_config = example({"name": "Capitals", "description": "Cities and their countries"})

    name: Name
    description: Text = ""


class SetChange(Input):
    """What is to change of a set; what is left out stays."""

    model_config = example({"description": "Capital cities"})

    name: Name | None = None
    description: Text | None = None


class ImportQuery(Input):
    """What the new set is called, and which columns mean what where the names do not say it."""

    name: Name
    prompt: Name | None = None
    expected: Name | None = None
    metric: Metric | None = None
    category: Name | None = None
    reference: Name | None = None
    separator: Annotated[str, Field(min_length=1, max_length=10)] = ";"


class ImportedOut(Output):
    """A set that was imported."""

    model_config = example({"id": _EXAMPLE["id"], "name": "Capitals", "tests": 817})

    id: uuid.UUID
    name: str
    tests: int

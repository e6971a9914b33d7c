"""Test configurations as the API takes and shows them."""

import uuid
from datetime import datetime
from typing import Final

from assay.schemas.base import Input, Name, Next, Output, example

_EXAMPLE: Final = {
    "id": "4d2f6a36-93c0-4d7e-8f47-0a0f2b8f1c11",
    "name": "Capitals, support bot",
    "test_set_id": "6f1d9d5c-3a6b-4a57-8a43-0e2c6c1d7a55",
    "endpoint_id": "b8f6c3c2-2d3e-4a6f-9d1b-6c3a7a0d5e21",
    "created_at": "2026-11-22T12:00:00Z",
    "updated_at": "2026-11-22T12:00:00Z",
}


class ConfigurationOut(Output):
    """A set of tests, and the endpoint that it is run against."""

    model_config = example(_EXAMPLE)

    id: uuid.UUID
    name: str
    test_set_id: uuid.UUID
    endpoint_id: uuid.UUID
    created_at: datetime
    updated_at: datetime


class ConfigurationPage(Output):
    """A part of the list of configurations, oldest first."""

    items: list[ConfigurationOut]
    next: Next


class ConfigurationCreate(Input):
    """A new configuration."""

    model_config = example({k: _EXAMPLE[k] for k in ("name", "test_set_id", "endpoint_id")})

    name: Name
    test_set_id: uuid.UUID
    endpoint_id: uuid.UUID


class ConfigurationChange(Input):
    """What is to change of a configuration; what is left out stays."""

    model_config = example({"name": "Capitals, new support bot"})

    name: Name | None = None
    test_set_id: uuid.UUID | None = None
    endpoint_id: uuid.UUID | None = None


class LaunchedOut(Output):
    """A task that was launched; follow it at `/tasks/{task_id}`."""

    model_config = example({"task_id": "c5b5a9a4-6f6e-5b0e-8b76-9d0f0d9f7b10"})

    task_id: uuid.UUID

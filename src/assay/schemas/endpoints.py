"""Endpoints as the API takes and shows them."""

import uuid
from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from assay.config import LONGEST_ENDPOINT_TIMEOUT
from assay.schemas.base import Input, Name, Next, Output, example

_EXAMPLE: Final = {
    "id": "b8f6c3c2-2d3e-4a6f-9d1b-6c3a7a0d5e21",
    "name": "Support bot",
    "url": "https://bot.example.org/ask",
    "timeout_seconds": 30,
    "created_at": "2026-11-22T12:00:00Z",
    "updated_at": "2026-11-22T12:00:00Z",
}

Url = Annotated[
    str,
    Field(
        min_length=1,
        max_length=2000,
        description="https, with a public address; prompts are posted to it.",
    ),
]
Seconds = Annotated[
    int, Field(ge=1, le=LONGEST_ENDPOINT_TIMEOUT, description="That an answer may take.")
]


class EndpointOut(Output):
    """An application under test: `{"prompt": …}` is posted, `{"answer": …}` expected."""

    model_config = example(_EXAMPLE)

    id: uuid.UUID
    name: str
    url: str
    timeout_seconds: int
    created_at: datetime
    updated_at: datetime


class EndpointPage(Output):
    """A part of the list of endpoints, oldest first."""

    items: list[EndpointOut]
    next: Next


class EndpointCreate(Input):
    """A new endpoint."""

    model_config = example({"name": "Support bot", "url": "https://bot.example.org/ask"})

    name: Name
    url: Url
    timeout_seconds: Seconds = 30


class EndpointChange(Input):
    """What is to change of an endpoint; what is left out stays."""

    model_config = example({"timeout_seconds": 60})

    name: Name | None = None
    url: Url | None = None
    timeout_seconds: Seconds | None = None

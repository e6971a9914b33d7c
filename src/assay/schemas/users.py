"""Users as the API takes and shows them."""

import uuid
from datetime import datetime
from typing import Final

from assay.schemas.base import Input, Name, Next, Output, example

_EXAMPLE: Final = {
    "id": "9a7e7c8e-0c1d-4c3b-8f6a-2f8d1b5e6a70",
    "email": "ada@example.org",
    "name": "Ada",
    "created_at": "2026-11-22T12:00:00Z",
}


class UserOut(Output):
    """A person of the organization."""

    model_config = example(_EXAMPLE)

    id: uuid.UUID
    email: str
    name: str
    created_at: datetime


class UserPage(Output):
    """A part of the list of users, oldest first."""

    items: list[UserOut]
    next: Next


class UserCreate(Input):
    """A new user; without a name it is what stands before the @."""

    model_config = example({"email": "ada@example.org", "name": "Ada"})

    email: Name
    name: Name | None = None

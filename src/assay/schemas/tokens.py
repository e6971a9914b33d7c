"""API tokens as the API takes and shows them."""

import uuid
from datetime import datetime
from typing import Annotated, Final

from pydantic import Field

from assay.schemas.base import Input, Name, Next, Output, example
from assay.services.tokens import LIFETIME

_EXAMPLE: Final = {
    "id": "e2f1c6d4-5b7a-4a0f-8c3e-1d2b3a4c5d6e",
    "name": "CI",
    "prefix": "assay_k3Jx9Q",
    "created_at": "2026-11-22T12:00:00Z",
    "expires_at": "2027-02-20T12:00:00Z",
    "last_used_at": None,
    "revoked_at": None,
}


class TokenOut(Output):
    """A token, without its secret."""

    model_config = example(_EXAMPLE)

    id: uuid.UUID
    name: str
    prefix: Annotated[str, Field(description="How the token begins.")]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: Annotated[datetime | None, Field(description="To the minute.")]
    revoked_at: datetime | None


class TokenPage(Output):
    """A part of the list of tokens, oldest first."""

    items: list[TokenOut]
    next: Next


class TokenCreate(Input):
    """A new token of the user who asks."""

    model_config = example({"name": "CI", "days": 30})

    name: Name
    days: Annotated[int, Field(ge=1, le=366, description="After which it ends.")] = LIFETIME.days


class TokenCreated(TokenOut):
    """A new token, shown this once: what is kept of it is a hash."""

    model_config = example(
        _EXAMPLE | {"token": "assay_k3Jx9QdT0cVvWmJ5n8rYb1sZ2xE7aUfGhLpKoIqNwRs"}
    )

    token: str

"""Lists in parts, by key: each part begins after the last row of the one before it."""

import base64
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, tuple_
from sqlalchemy.orm import Session

from assay.exceptions import InvalidValueError

Row = TypeVar("Row", bound=Any)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """A part of a list.

    Attributes:
        items: oldest first.
        next: where the next part begins; None on the last.
    """

    items: list[Row]
    next: str | None


def read_page(
    session: Session, query: Select[Any], model: type[Row], *, size: int, after: str | None
) -> Page[Row]:
    """Return so many rows of a query on a model with `created_at` and `id`, oldest first.

    The index on (organization_id, created_at, id) finds each page at once, however far it is.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    key = (model.created_at, model.id)
    if after is not None:
        query = query.where(tuple_(*key) > tuple_(*_position(after)))
    found = list(session.scalars(query.order_by(*key).limit(size + 1)))
    more = len(found) > size
    return Page(found[:size], _mark(found[size - 1]) if more else None)


def _mark(row: Any) -> str:
    text = f"{row.created_at.isoformat()} {row.id.hex}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _position(mark: str) -> tuple[datetime, uuid.UUID]:
    try:
        moment, _, id_ = base64.urlsafe_b64decode(mark).decode("ascii").partition(" ")
        return datetime.fromisoformat(moment).astimezone(UTC), uuid.UUID(id_)
    except (ValueError, OverflowError) as error:
        raise InvalidValueError("`after` is not what a page gave as `next`") from error

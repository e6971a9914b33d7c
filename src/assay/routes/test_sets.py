"""`/test_sets`: sets of tests of the token's organization."""

import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, BinaryIO, Final

from fastapi import APIRouter, Depends, HTTPException, Query, Request, status

from assay.authentication import CurrentUser, TenantSession
from assay.config import ApiPolicy
from assay.models import TestSet
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.test_sets import (
    ImportedOut,
    ImportQuery,
    SetChange,
    SetCreate,
    SetOut,
    SetPage,
)
from assay.services import imports, sets
from assay.services.pages import Page

router = APIRouter(prefix="/test_sets", tags=["test sets"])

_FORMATS: Final = {
    "text/csv": imports.Format.CSV,
    "application/x-ndjson": imports.Format.JSONL,
    "application/jsonl": imports.Format.JSONL,
}


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """The body of an import, all of it."""

    content: BinaryIO
    format: imports.Format
    options: ImportQuery


async def receive_file(
    request: Request, _user: CurrentUser, options: Annotated[ImportQuery, Query()]
) -> AsyncIterator[ReceivedFile]:
    """Receive a file before its request has a turn at the database: a slow client holds up nobody.

    Raises:
        HTTPException: its format is unknown.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    file_format = _FORMATS.get(media_type)
    if file_format is None:
        raise HTTPException(415, f"send one of {', '.join(_FORMATS)}")
    with tempfile.TemporaryFile() as content:
        async for chunk in request.stream():
            content.write(chunk)
        content.seek(0)
        yield ReceivedFile(content, file_format, options)


@router.get("", response_model=SetPage, responses=problems())
def list_sets(db: TenantSession, page: Annotated[PageQuery, Query()]) -> Page[TestSet]:
    """List the sets, oldest first, a page at a time."""
    return sets.page_of_sets(db, size=page.size, after=page.after)


@router.post(
    "", response_model=SetOut, status_code=status.HTTP_201_CREATED, responses=problems(409, 413)
)
def create_set(db: TenantSession, new: SetCreate) -> TestSet:
    """Create an empty set; its name is new to the organization."""
    return sets.create_set(db, new.name, new.description)


@router.get("/{set_id}", response_model=SetOut, responses=problems(404))
def get_set(db: TenantSession, set_id: uuid.UUID) -> TestSet:
    """Show a set."""
    return sets.get_set(db, set_id)


@router.patch("/{set_id}", response_model=SetOut, responses=problems(404, 409, 413))
def change_set(db: TenantSession, set_id: uuid.UUID, change: SetChange) -> TestSet:
    """Change a set's name or description."""
    return sets.change_set(db, set_id, name=change.name, description=change.description)


@router.delete("/{set_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404, 409))
def delete_set(db: TenantSession, set_id: uuid.UUID) -> None:
    """Delete a set that no configuration names; its tests stay."""
    sets.delete_set(db, set_id)


@router.post(
    "/import",
    response_model=ImportedOut,
    status_code=status.HTTP_201_CREATED,
    responses=problems(409, 413, 415),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                media_type: {"schema": {"type": "string", "format": "binary"}}
                for media_type in _FORMATS
            },
        }
    },
)
def import_set(
    request: Request,
    file: Annotated[ReceivedFile, Depends(receive_file, scope="function")],
    db: TenantSession,
) -> imports.ImportedSet:
    """Import a CSV or JSONL file as a new set: all of it, or nothing.

    The body is the file itself. The published files of TruthfulQA (CSV) and GSM8K (JSONL) need no
    options for columns.
    """
    policy: ApiPolicy = request.app.state.policy
    return imports.import_stream(
        db,
        file.content,
        file.options.name,
        file_format=file.format,
        columns=imports.Columns(**file.options.model_dump(exclude={"name"})),
        most=policy.most_tests,
    )

"""The import itself: one transaction of the organization, stored in batches as the file is read."""

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, Final

from sqlalchemy import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from assay.database import SessionLocal
from assay.exceptions import (
    ConnectionLostError,
    DuplicateTestSetError,
    TooManyTestsError,
    UnreadableFileError,
)
from assay.models import Test, TestSetTest
from assay.services.imports.layouts import Columns, Row, rows_of
from assay.services.imports.records import Format, Lines, guessed_format, read_records
from assay.services.sets import create_set
from assay.services.values import checked_name
from tenantry import set_tenant

_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an import is.

    Attributes:
        tests: stored so far.
        bytes_read: of the file.
        bytes_total: of the file; 0 where that is not known, as for a pipe.
    """

    tests: int
    bytes_read: int
    bytes_total: int


@dataclass(frozen=True, slots=True)
class ImportedSet:
    """A set of tests that was stored."""

    id: uuid.UUID
    name: str
    tests: int


def import_tests(
    path: Path,
    organization_id: uuid.UUID,
    set_name: str,
    *,
    file_format: Format | None = None,
    columns: Columns | None = None,
    limit: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    sessions: Callable[[], Session] = SessionLocal,
) -> ImportedSet:
    """Store a file as a new set of tests of the organization: all of it, or nothing at all.

    One transaction as the application role, under row-level security. The file is read as it is
    stored, so its size does not matter.

    Args:
        path: a CSV or JSONL file in UTF-8.
        organization_id: whose set it will be.
        set_name: the name of the set, which must be new to the organization.
        file_format: by default what the file's name ends with.
        columns: what they mean, where neither the file's own layout nor the defaults say it.
        limit: read so many tests and no more.
        progress: called after each batch.
        sessions: makes the Session.

    Raises:
        UnreadableFileError: the file is missing, empty, no file, or of a format unknown.
        MissingColumnError: a column that is needed is not there.
        BrokenRowError: a row cannot be a test; the error names the line.
        InvalidValueError: the set's name is blank or too long.
        DuplicateTestSetError: the organization has a set of this name.
        UnknownTenantError: the organization does not exist.
        ConnectionLostError: the connection broke on the way.
    """
    name = checked_name(set_name, what="the set's name")
    # Of what is not there the name tells nothing: opening it says so.
    chosen = file_format or (guessed_format(path) if path.exists() else Format.CSV)
    with _opened(path) as stream:
        lines = Lines(stream)
        size = path.stat().st_size if path.is_file() else 0
        rows = itertools.islice(rows_of(read_records(lines, chosen), columns or Columns()), limit)
        first = next(rows, None)
        if first is None:
            raise UnreadableFileError(f"{path} is empty: there is no test in it")

        def report(tests: int) -> None:
            if progress is not None:
                progress(Progress(tests, lines.bytes_read, size))

        with sessions() as session:
            set_tenant(session, organization_id)
            return _store(session, name, itertools.chain([first], rows), report)


def import_stream(
    session: Session,
    stream: BinaryIO,
    set_name: str,
    *,
    file_format: Format,
    columns: Columns,
    most: int,
) -> ImportedSet:
    """Store what a stream holds as a new set, in the transaction of the Session.

    Args:
        session: of the organization whose set it will be; not committed here.
        stream: CSV or JSONL in UTF-8, read as it is stored.
        set_name: as for `import_tests`.
        file_format: of the stream.
        columns: as for `import_tests`.
        most: tests that it may hold.

    Raises:
        UnreadableFileError: the stream is empty.
        MissingColumnError, BrokenRowError, InvalidValueError, DuplicateTestSetError: as for
            `import_tests`.
        TooManyTestsError: it holds more than it may; what was stored is to be rolled back.
    """
    name = checked_name(set_name, what="the set's name")
    rows = rows_of(read_records(Lines(stream), file_format), columns)
    first = next(rows, None)
    if first is None:
        raise UnreadableFileError("the file is empty: there is no test in it")

    def bound(tests: int) -> None:
        if tests > most:
            raise TooManyTestsError(f"the file holds more than {most:,} tests: split it")

    return _insert_all(session, name, itertools.chain([first], rows), bound)


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except (OSError, ValueError) as error:
        fault = error.strerror if isinstance(error, OSError) else error
        raise UnreadableFileError(f"{path} cannot be read: {fault}") from error


def _store(
    session: Session, name: str, rows: Iterator[Row], report: Callable[[int], None]
) -> ImportedSet:
    tests = 0
    committing = False

    def count(stored: int) -> None:
        nonlocal tests
        tests = stored
        report(stored)

    try:
        imported = _insert_all(session, name, rows, count)
        committing = True
        session.commit()
    except DuplicateTestSetError as error:
        raise DuplicateTestSetError(
            f"{error}, and nothing was imported: choose another name with --set"
        ) from error
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        outcome = (
            "while the import was being committed: `assay sets list` shows whether it was"
            if committing
            else f"after {tests} tests: nothing was imported, run it again"
        )
        fault = str(error.orig).strip().partition("\n")[0]
        raise ConnectionLostError(
            f"the connection to the database broke ({fault}) {outcome}"
        ) from error
    return imported


def _insert_all(
    session: Session, name: str, rows: Iterator[Row], report: Callable[[int], None]
) -> ImportedSet:
    set_id = create_set(session, name).id
    tests = 0
    while batch := list(itertools.islice(rows, _BATCH)):
        _insert(session, set_id, tests, batch)
        tests += len(batch)
        report(tests)
    return ImportedSet(set_id, name, tests)


def _insert(session: Session, set_id: uuid.UUID, position: int, batch: list[Row]) -> None:
    """Store tests and their places in the set, from this position on."""
    ids = [uuid.uuid4() for _ in batch]
    session.execute(
        insert(Test),
        [{"id": id_, **asdict(row)} for id_, row in zip(ids, batch, strict=True)],
    )
    session.execute(
        insert(TestSetTest),
        [
            {"test_set_id": set_id, "test_id": id_, "position": place}
            for place, id_ in enumerate(ids, start=position + 1)
        ],
    )

"""Records of a CSV or JSONL file, read line by line, each with the line on which it begins."""

import csv
import enum
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from assay.exceptions import BrokenRowError, UnreadableFileError

LONGEST_RECORD: Final = 1024 * 1024
"""Bytes of a record at most; without a bound an unclosed quote would read the file to its end."""

_BOM: Final = b"\xef\xbb\xbf"


class Format(enum.StrEnum):
    """How a file is written; the first line of a CSV file names its columns."""

    CSV = "csv"
    JSONL = "jsonl"


_FORMATS: Final = {".csv": Format.CSV, ".jsonl": Format.JSONL, ".ndjson": Format.JSONL}


@dataclass(frozen=True, slots=True)
class Record:
    """The fields of one row by column; of a JSON number, the digits as they are written.

    Attributes:
        line: the physical line on which it begins, from 1.
        fields: text from CSV, and what else JSON can hold from JSONL.
    """

    line: int
    fields: dict[str, Any]


class Lines:
    """The lines of a UTF-8 file, counted; a byte order mark is left out.

    Attributes:
        number: the line that was read last, from 1.
        record_line: the line on which the current record begins.
        bytes_read: how much of the file is done.
    """

    def __init__(self, stream: BinaryIO) -> None:
        """Begin at the start of a binary stream."""
        self.number = 0
        self.record_line = 1
        self.bytes_read = 0
        self._record_bytes = 0
        self._stream = stream

    def begin_record(self) -> None:
        """Let the next line be the first of a record."""
        self.record_line = self.number + 1
        self._record_bytes = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """Return the next line with its end.

        Raises:
            BrokenRowError: it is not UTF-8, or the record is too long.
            UnreadableFileError: reading failed.
        """
        try:
            raw = self._stream.readline(LONGEST_RECORD + 1)
        except OSError as error:
            raise UnreadableFileError(
                f"reading failed after line {self.number}: {error.strerror or error}"
            ) from error
        if not raw:
            raise StopIteration
        self.number += 1
        self.bytes_read += len(raw)
        self._record_bytes += len(raw)
        if self._record_bytes > LONGEST_RECORD:
            raise BrokenRowError(
                self.record_line,
                f"the row is longer than {LONGEST_RECORD // 1024} KiB; is a quote not closed, or "
                "is this another format?",
            )
        mark = len(_BOM) if self.number == 1 and raw.startswith(_BOM) else 0
        try:
            return raw[mark:].decode("utf-8")
        except UnicodeDecodeError as error:
            raise BrokenRowError(
                self.number,
                f"byte {mark + error.start + 1} of the line, 0x{raw[mark + error.start]:02x}, is "
                "not UTF-8: save the file as UTF-8",
            ) from error


def guessed_format(path: Path) -> Format:
    """Return the format that the file's name ends with.

    Raises:
        UnreadableFileError: it ends with none of them.
    """
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise UnreadableFileError(
            f"{path}: the name does not end with {', '.join(_FORMATS)}: say which format it is, "
            "--format csv or --format jsonl"
        )
    return found


def read_records(lines: Lines, file_format: Format) -> Iterator[Record]:
    """Yield the records of a file; blank lines are none.

    Raises:
        BrokenRowError: a record cannot be read.
        UnreadableFileError: reading failed.
    """
    return _read_csv(lines) if file_format is Format.CSV else _read_jsonl(lines)


def _read_csv(lines: Lines) -> Iterator[Record]:
    # The module's own bound on a field is for the whole process, and lower than ours on a record.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_RECORD))
    header: list[str] | None = None
    for values in _csv_rows(lines):
        line = lines.record_line
        if header is None:
            header = [name.strip() for name in values]
            counted = Counter(header)
            twice = next((name for name in header if name and counted[name] > 1), None)
            if twice is not None:
                raise BrokenRowError(line, f"the header names the column {twice!r} twice")
        elif len(values) != len(header):
            raise BrokenRowError(
                line,
                f"the number of fields is {len(values)}, the header's is {len(header)}: put a "
                "field that holds a comma or a line break in double quotes",
            )
        else:
            yield Record(line, dict(zip(header, values, strict=True)))


def _csv_rows(lines: Lines) -> Iterator[list[str]]:
    reader = csv.reader(lines, strict=True)
    while True:
        lines.begin_record()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if str(error) == "unexpected end of data":
                raise BrokenRowError(
                    lines.record_line, "a double quote of this row is never closed"
                ) from error
            where = f" at line {lines.number}" if lines.number > lines.record_line else ""
            raise BrokenRowError(lines.record_line, f"not CSV{where}: {error}") from error
        if values:
            yield values


def _read_jsonl(lines: Lines) -> Iterator[Record]:
    decoder = json.JSONDecoder(
        object_pairs_hook=_unique_keys,
        parse_int=str,
        parse_float=str,
        parse_constant=_refuse_constant,
    )
    while True:
        lines.begin_record()
        text = next(lines, None)
        if text is None:
            return
        if not text.strip():
            continue
        try:
            value = decoder.decode(text)
        except json.JSONDecodeError as error:
            raise BrokenRowError(
                lines.number, f"not JSON: {error.msg} at column {error.colno}"
            ) from error
        except (ValueError, RecursionError) as error:
            raise BrokenRowError(lines.number, f"not JSON: {error}") from error
        if not isinstance(value, dict):
            raise BrokenRowError(
                lines.number, 'not a JSON object: write {"prompt": …, "expected": …} on each line'
            )
        yield Record(lines.number, value)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object names a key twice")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")

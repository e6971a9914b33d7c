"""Records of CSV and JSONL files: what is read, and which line a fault is said to be on."""

import io
from typing import Any

import pytest

from assay.exceptions import BrokenRowError, UnreadableFileError
from assay.services.imports.records import (
    LONGEST_RECORD,
    Format,
    Lines,
    Record,
    read_records,
)


def read(content: bytes, file_format: Format) -> list[Record]:
    return list(read_records(Lines(io.BytesIO(content)), file_format))


def fault(content: bytes, file_format: Format) -> BrokenRowError:
    with pytest.raises(BrokenRowError) as caught:
        read(content, file_format)
    assert str(caught.value).startswith(f"line {caught.value.line}: ")
    return caught.value


def test_csv_lines_are_physical_lines() -> None:
    """A record after a field of several lines is on the line that an editor shows."""
    records = read(b'a,b\n"1\n2\n3",x\n\n4,y\n', Format.CSV)
    assert [(record.line, record.fields) for record in records] == [
        (2, {"a": "1\n2\n3", "b": "x"}),
        (6, {"a": "4", "b": "y"}),
    ]


def test_jsonl_lines_are_physical_lines() -> None:
    """Blank lines are no records, and are counted."""
    records = read(b'{"a": "1"}\n\n  \n{"a": "2"}', Format.JSONL)
    assert [record.line for record in records] == [1, 4]


@pytest.mark.parametrize(
    ("content", "file_format"),
    [
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", Format.CSV),
        (b'\xef\xbb\xbf{"a": "1", "b": "2"}\r\n', Format.JSONL),
        (b" a , b \n1,2", Format.CSV),
        (b'{"a": 1, "b": 2}', Format.JSONL),
    ],
)
def test_marks_line_ends_and_blanks_round_names_are_no_content(
    content: bytes, file_format: Format
) -> None:
    """A byte order mark, CRLF, blanks in the header and JSON's numbers all read as the same row."""
    assert [record.fields for record in read(content, file_format)] == [{"a": "1", "b": "2"}]


def test_numbers_keep_their_digits() -> None:
    """A JSON number is read as written: no float in between changes it."""
    record = read(b'{"a": 0.10000000000000000001, "b": 1e400}', Format.JSONL)[0]
    assert record.fields == {"a": "0.10000000000000000001", "b": "1e400"}


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"a,b\n1,2\n3\n", 3, "fields is 1, the header's is 2"),
        (b"a,b\n1,2,3\n", 2, "fields is 3, the header's is 2"),
        (b'a,b\n"x\ny",1\n"never closed,2\n3,4\n', 4, "never closed"),
        (b'a,b\n1,"x"y\n', 2, "not CSV"),
        (b'a,b\n"1\n2"x,3\n', 2, "not CSV at line 3"),
        (b'a,b\n1,2\n"x\n\xff",3\n', 4, "byte 1 of the line, 0xff"),
        ("a,b\n1,2\nné,3\n".encode("latin-1"), 3, "byte 2 of the line, 0xe9"),
        (b"\xef\xbb\xbfa\xe9,b\n", 1, "byte 5 of the line, 0xe9"),
        ("a,b\n1,2\n".encode("utf-16"), 1, "byte 1 of the line, 0xff"),
        (b"a,b,a\n", 1, "column 'a' twice"),
        (b"a,b\n1,2\n" + b"x" * LONGEST_RECORD + b",1\n", 3, "longer than 1024 KiB"),
        (b'a,b\n1,2\n"x' + b"\nxxxxxxx" * (LONGEST_RECORD // 8), 3, "is a quote not closed"),
        (b"a,b\r1,2\r", 1, "not CSV"),
    ],
)
def test_broken_csv_names_its_line(content: bytes, line: int, words: str) -> None:
    """Each way in which CSV can be broken is one error, on the line where the row begins."""
    error = fault(content, Format.CSV)
    assert error.line == line
    assert words in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a": ', "not JSON"),
        (b'{"a": "1"} x', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'["a"]', "not a JSON object"),
        (b"12", "not a JSON object"),
        (b'{"a": NaN}', "NaN is no JSON value"),
        (b'{"a": "1", "a": "2"}', "a key twice"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": "\xe9"}', "byte 8 of the line, 0xe9"),
        (b'{"a": "' + b"x" * LONGEST_RECORD + b'"}', "longer than 1024 KiB"),
    ],
)
def test_broken_json_names_its_line(content: bytes, words: str) -> None:
    """Each way in which a line of JSON can be broken is one error that names the line."""
    error = fault(b'{"a": "fine"}\n\n' + content + b'\n{"a": "fine"}\n', Format.JSONL)
    assert error.line == 3
    assert words in str(error)


def test_header_of_very_many_columns_is_read() -> None:
    """The time grows with the header, not with its square, which would be minutes here."""
    names = [f"{n:x}" for n in range(150_000)]
    content = f"{','.join(names)}\n{','.join(names)}\n".encode()
    (record,) = read_records(Lines(io.BytesIO(content)), Format.CSV)
    assert len(record.fields) == len(names)


def test_file_is_read_as_its_records_are_wanted() -> None:
    """The first record is there when no more than its line was read."""
    stream = io.BytesIO(b'{"a": "1"}\n' * 1000)
    next(read_records(Lines(stream), Format.JSONL))
    assert stream.tell() == len(b'{"a": "1"}\n')


def test_reading_that_fails_says_where() -> None:
    """An error of the disk is told with the last line that was read."""

    class Failing(io.BytesIO):
        def readline(self, size: Any = -1, /) -> bytes:
            if self.tell() > 0:
                raise OSError(5, "Input/output error")
            return super().readline(size)

    with pytest.raises(UnreadableFileError, match="after line 1: Input/output error"):
        list(read_records(Lines(Failing(b"a,b\n1,2\n")), Format.CSV))

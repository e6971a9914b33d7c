"""What the columns of a file mean, and how a record becomes a test."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Final

from assay.exceptions import BrokenRowError, InvalidValueError, MissingColumnError
from assay.models import Metric
from assay.services.imports.expressions import Expressions
from assay.services.imports.records import Record
from assay.services.values import text_fault

# Grouping commas only where they group thousands; an exponent of three digits keeps the written
# out number short.
_NUMBER: Final = re.compile(
    r"[+-]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What the user says about the columns of a file; None leaves it to the file.

    Attributes:
        prompt: the column of what is asked.
        expected: the column of what counts as right.
        metric: how every answer is compared, in place of the column `metric`.
        category: the column of the category.
        reference: the column of a full answer, for people to read.
        separator: between the answers in a field, where any of them will do.
    """

    prompt: str | None = None
    expected: str | None = None
    metric: Metric | None = None
    category: str | None = None
    reference: str | None = None
    separator: str = ";"

    def __post_init__(self) -> None:
        if not self.separator:
            raise InvalidValueError("the separator is empty: the answers could not be told apart")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A test as the file describes it, ready to be stored."""

    prompt: str
    expected: list[str]
    metric: Metric
    category: str | None
    reference: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Which column holds what, and how answers are written in it.

    Attributes:
        needed: columns that each record must have, with the option that names another one.
        marker: what stands before the answer proper, in the expected column.
    """

    prompt: str = "prompt"
    expected: str = "expected"
    metric: Metric | None = None
    metric_column: str | None = "metric"
    category: str = "category"
    reference: str = "reference"
    needed: dict[str, str] = field(default_factory=dict)
    marker: str | None = None
    separator: str = ";"

    def row(self, record: Record, expressions: Expressions) -> Row:
        """Return the record as a test, whose regular expressions are among these.

        Raises:
            BrokenRowError: it cannot be one.
        """
        for column in self.needed:
            if column not in record.fields:
                raise BrokenRowError(record.line, f"there is no field {column!r}")
        metric = self._metric(record)
        return Row(
            prompt=_needed_text(record, self.prompt),
            expected=[
                _comparable(answer, metric, record.line, expressions)
                for answer in self._answers(record, metric)
            ],
            metric=metric,
            category=_text(record, self.category),
            reference=_text(record, self.reference),
        )

    def _metric(self, record: Record) -> Metric:
        if self.metric is not None:
            return self.metric
        name = None if self.metric_column is None else _text(record, self.metric_column)
        if name is None:
            return Metric.EXACT
        try:
            return Metric(name.strip().lower())
        except ValueError as error:
            raise BrokenRowError(
                record.line, f"metric {name!r} is unknown: use one of {', '.join(Metric)}"
            ) from error

    def _answers(self, record: Record, metric: Metric) -> list[str]:
        value = record.fields[self.expected]
        if isinstance(value, list):
            answers = [_checked(item, self.expected, record.line) for item in value]
            if not answers or not all(answer.strip() for answer in answers):
                raise BrokenRowError(record.line, f"{self.expected!r} lacks an answer")
            return answers
        text = _needed_text(record, self.expected)
        if self.marker is not None:
            _, marker, text = text.rpartition(self.marker)
            text = text.strip()
            if not marker or not text:
                raise BrokenRowError(
                    record.line, f"{self.expected!r} has no answer after {self.marker!r}"
                )
        if metric is not Metric.ANY_OF:
            return [text]
        answers = [answer.strip() for answer in text.split(self.separator)]
        answers = list(dict.fromkeys(answer for answer in answers if answer))
        if not answers:
            raise BrokenRowError(record.line, f"{self.expected!r} lacks an answer")
        return answers


GENERIC: Final = Layout(needed={"prompt": "--prompt", "expected": "--expected"})

TRUTHFULQA: Final = Layout(
    prompt="Question",
    expected="Correct Answers",
    metric=Metric.ANY_OF,
    category="Category",
    reference="Best Answer",
    needed={
        "Question": "--prompt",
        "Correct Answers": "--expected",
        "Category": "--category",
        "Best Answer": "--reference",
    },
)

GSM8K: Final = Layout(
    prompt="question",
    expected="answer",
    metric=Metric.NUMERIC,
    reference="answer",
    needed={"question": "--prompt", "answer": "--expected"},
    marker="####",
)


def layout_of(record: Record, columns: Columns) -> Layout:
    """Return what the columns mean, going by the first record and by what the user says.

    The published files of TruthfulQA and GSM8K are known; others have the columns prompt,
    expected and, if they like, metric, category and reference.

    Raises:
        MissingColumnError: a column that is needed, or that the user named, is not there.
    """
    layout = _adjusted(_recognised(record), columns)
    for column, option in layout.needed.items():
        if column not in record.fields:
            found = ", ".join(repr(name) for name in record.fields)
            raise MissingColumnError(
                f"line {record.line}: there is no column {column!r}, only {found}: name another "
                f"one with {option}"
            )
    return layout


def rows_of(records: Iterator[Record], columns: Columns) -> Iterator[Row]:
    """Yield the records as tests.

    Raises:
        MissingColumnError: as for `layout_of`.
        BrokenRowError: a record cannot be a test.
    """
    layout: Layout | None = None
    expressions = Expressions()
    for record in records:
        if layout is None:
            layout = layout_of(record, columns)
        yield layout.row(record, expressions)


def _recognised(record: Record) -> Layout:
    if TRUTHFULQA.needed.keys() <= record.fields.keys():
        return TRUTHFULQA
    if GSM8K.needed.keys() <= record.fields.keys() and "####" in str(record.fields["answer"]):
        return GSM8K
    return GENERIC


def _adjusted(layout: Layout, columns: Columns) -> Layout:
    needed = {option: column for column, option in layout.needed.items()}
    if columns.prompt is not None:
        layout = replace(layout, prompt=columns.prompt)
        needed["--prompt"] = columns.prompt
    if columns.expected is not None:
        # How answers are compared and marked goes with the column they were in.
        layout = replace(layout, expected=columns.expected, metric=None, marker=None)
        needed["--expected"] = columns.expected
    if columns.metric is not None:
        layout = replace(layout, metric=columns.metric)
    if columns.category is not None:
        layout = replace(layout, category=columns.category)
        needed["--category"] = columns.category
    if columns.reference is not None:
        layout = replace(layout, reference=columns.reference)
        needed["--reference"] = columns.reference
    return replace(
        layout,
        separator=columns.separator,
        needed={column: option for option, column in needed.items()},
    )


def _checked(value: Any, column: str, line: int) -> str:
    if not isinstance(value, str):
        kind = {bool: "true or false", dict: "an object", list: "a list"}.get(type(value), "null")
        raise BrokenRowError(line, f"{column!r} is {kind} where text should be")
    fault = text_fault(value)
    if fault is not None:
        raise BrokenRowError(line, f"{column!r} {fault}")
    return value


def _text(record: Record, column: str) -> str | None:
    value = record.fields.get(column)
    text = "" if value is None else _checked(value, column, record.line)
    return text if text.strip() else None


def _needed_text(record: Record, column: str) -> str:
    text = _text(record, column)
    if text is None:
        raise BrokenRowError(record.line, f"{column!r} is empty")
    return text


def _comparable(answer: str, metric: Metric, line: int, expressions: Expressions) -> str:
    if metric is Metric.NUMERIC:
        return _number(answer, line)
    return expressions.check(answer, line) if metric is Metric.REGEX else answer


def _number(answer: str, line: int) -> str:
    """Return a number without grouping, plus sign and needless zeros: '+1,450.50' is '1450.5'."""
    text = answer.strip().replace("\N{MINUS SIGN}", "-")
    if not _NUMBER.fullmatch(text):
        raise BrokenRowError(line, f"{answer!r} is no number, and the metric is numeric")
    plain = format(Decimal(text.replace(",", "")), "f")
    if "." in plain:
        plain = plain.rstrip("0").removesuffix(".")
    return "0" if plain in {"-0", ""} else plain

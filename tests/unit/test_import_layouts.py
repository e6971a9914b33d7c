"""What columns mean: the known files, the defaults, the options, and rows that can be no test."""

import functools
import math
from typing import Any

import pytest

from assay.exceptions import BrokenRowError, InvalidValueError, MissingColumnError
from assay.models import Metric
from assay.services.imports import layouts
from assay.services.imports.expressions import Expressions
from assay.services.imports.layouts import Columns, Row, rows_of
from assay.services.imports.records import Record

TRUTHFULQA = {
    "Type": "Adversarial",
    "Category": "Myths",
    "Question": "Why?",
    "Best Answer": "Because",
    "Correct Answers": "Because; No reason;  Because;",
    "Incorrect Answers": "Never",
    "Source": "https://example.org",
}
GSM8K = {"question": "How many?", "answer": "5 * 425 = 2125\n#### 2,125"}


def row(fields: dict[str, Any], columns: Columns | None = None) -> Row:
    return next(rows_of(iter([Record(7, fields)]), columns or Columns()))


def test_truthfulqa_is_recognised() -> None:
    """Its correct answers are told apart, each once, and any of them will do."""
    assert row(TRUTHFULQA) == Row(
        prompt="Why?",
        expected=["Because", "No reason"],
        metric=Metric.ANY_OF,
        category="Myths",
        reference="Because",
    )


def test_gsm8k_is_recognised() -> None:
    """The number after the marker is what counts; the working is kept to be read."""
    assert row(GSM8K) == Row(
        prompt="How many?",
        expected=["2125"],
        metric=Metric.NUMERIC,
        category=None,
        reference=GSM8K["answer"],
    )


def test_gsm8k_without_marker_is_broken() -> None:
    """A later row that lacks the marker is refused, not stored without its answer."""
    rows = rows_of(iter([Record(1, GSM8K), Record(2, GSM8K | {"answer": "2125"})]), Columns())
    next(rows)
    with pytest.raises(BrokenRowError, match="line 2: 'answer' has no answer after '####'"):
        next(rows)


def test_defaults_need_two_columns() -> None:
    """A prompt and an expected answer are a test, compared exactly, blanks included."""
    assert row({"prompt": " p ", "expected": " e "}) == Row(
        prompt=" p ", expected=[" e "], metric=Metric.EXACT, category=None, reference=None
    )


def test_defaults_read_further_columns() -> None:
    """Metric, category and reference are read where the file has them."""
    fields = {"prompt": "p", "expected": "e", "metric": "Contains", "category": "c"}
    assert row(fields | {"reference": ""}) == Row(
        prompt="p", expected=["e"], metric=Metric.CONTAINS, category="c", reference=None
    )


def test_options_map_columns() -> None:
    """Each option replaces one column, and the metric of the option that of the file."""
    fields = {"q": "p", "a": "x|y", "kind": "c", "why": "r", "metric": "exact"}
    columns = Columns(
        prompt="q",
        expected="a",
        metric=Metric.ANY_OF,
        category="kind",
        reference="why",
        separator="|",
    )
    assert row(fields, columns) == Row(
        prompt="p", expected=["x", "y"], metric=Metric.ANY_OF, category="c", reference="r"
    )


def test_expected_by_option_leaves_the_known_way_of_comparing() -> None:
    """Another column for the answer of a known file holds one answer, compared exactly."""
    found = row(TRUTHFULQA, Columns(expected="Best Answer"))
    assert (found.expected, found.metric, found.category) == (["Because"], Metric.EXACT, "Myths")
    assert row(GSM8K, Columns(expected="answer")).expected == [GSM8K["answer"]]


def test_list_of_answers_is_taken_as_it_is() -> None:
    """JSON can say what the answers are: nothing is split, trimmed or left out."""
    fields = {"prompt": "p", "expected": ["a; b ", "a; b "], "metric": "any_of"}
    assert row(fields).expected == ["a; b ", "a; b "]


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("1,450,000", "1450000"),
        (" -10 ", "-10"),
        ("\N{MINUS SIGN}3", "-3"),
        ("+5", "5"),
        ("3.0", "3"),
        ("3.", "3"),
        (".50", "0.5"),
        ("-0.0", "0"),
        ("007", "7"),
        ("1200", "1200"),
        ("1.5e3", "1500"),
        ("12345678901234567890123456789012345.1", "12345678901234567890123456789012345.1"),
    ],
)
def test_numbers_have_one_form(written: str, stored: str) -> None:
    """However a number is written, the same text is stored for the same number."""
    fields = {"prompt": "p", "expected": written, "metric": "numeric"}
    assert row(fields).expected == [stored]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": ""}, "'prompt' is empty"),
        ({"prompt": " \n"}, "'prompt' is empty"),
        ({"prompt": None}, "'prompt' is empty"),
        ({"prompt": ["p"]}, "'prompt' is a list"),
        ({"prompt": True}, "'prompt' is true or false"),
        ({"prompt": {}}, "'prompt' is an object"),
        ({"prompt": "a\x00b"}, "'prompt' holds a NUL character"),
        ({"prompt": "\ud800"}, "'prompt' holds half of a surrogate pair (\\ud800)"),
        ({"expected": ""}, "'expected' is empty"),
        ({"expected": []}, "'expected' lacks an answer"),
        ({"expected": ["a", " "]}, "'expected' lacks an answer"),
        ({"expected": ["a", None]}, "'expected' is null"),
        ({"expected": "\x00"}, "'expected' holds a NUL character"),
        ({"expected": " ; ;", "metric": "any_of"}, "'expected' lacks an answer"),
        ({"metric": "best"}, "metric 'best' is unknown: use one of exact, contains"),
        ({"metric": "regex", "expected": "(a"}, "'(a' is no regular expression"),
        ({"metric": "numeric", "expected": "ten"}, "'ten' is no number"),
        ({"metric": "numeric", "expected": "1,23"}, "'1,23' is no number"),
        ({"metric": "numeric", "expected": "1e9999"}, "'1e9999' is no number"),
        ({"metric": "numeric", "expected": "nan"}, "'nan' is no number"),
        ({"category": "a\x00"}, "'category' holds a NUL character"),
        ({"reference": ["r"]}, "'reference' is a list"),
    ],
)
def test_row_that_is_no_test_is_refused(change: dict[str, Any], words: str) -> None:
    """Each fault of a row is one error that names the line and the column or value."""
    with pytest.raises(BrokenRowError) as caught:
        row({"prompt": "p", "expected": "e"} | change)
    assert str(caught.value).startswith("line 7: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "columns", "words"),
    [
        ({"q": "p", "expected": "e"}, Columns(), "no column 'prompt', only 'q', 'expected'"),
        ({"prompt": "p", "a": "e"}, Columns(), "with --expected"),
        ({"question": "p", "answer": "no marker"}, Columns(), "with --prompt"),
        ({"prompt": "p", "expected": "e"}, Columns(category="kind"), "with --category"),
        (TRUTHFULQA, Columns(reference="Sources"), "with --reference"),
    ],
)
def test_missing_column_names_those_there_are_and_the_option(
    fields: dict[str, Any], columns: Columns, words: str
) -> None:
    """A person can mend the command by what the error says."""
    with pytest.raises(MissingColumnError) as caught:
        row(fields, columns)
    assert words in str(caught.value)


def test_field_missing_in_a_later_row_names_the_line() -> None:
    """JSON objects need not be alike: the first that lacks a field is the broken one."""
    records = [Record(1, {"prompt": "p", "expected": "e"}), Record(3, {"prompt": "p"})]
    rows = rows_of(iter(records), Columns())
    next(rows)
    with pytest.raises(BrokenRowError, match="line 3: there is no field 'expected'"):
        next(rows)


@pytest.mark.parametrize("pattern", ["^yes|no$", "[[a]", "(?i)ja"])
def test_pattern_is_stored_as_written(pattern: str) -> None:
    """A pattern that Python reads is kept, also one that it would warn of."""
    fields = {"prompt": "p", "expected": pattern, "metric": "regex"}
    assert row(fields).expected == [pattern]


def test_expressions_are_compiled_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of plain ones are taken; a few that take all the time there is end the file.

    The mutation: with no end of time all of them are compiled.
    """

    def read(pattern: str, number: int) -> int:
        records = (
            Record(n, {"prompt": "p", "expected": f"{pattern}{n}", "metric": "regex"})
            for n in range(number)
        )
        return len(list(rows_of(records, Columns())))

    wide = "[!-\uffff]" * 20
    assert read("^(yes|no) ", 2000) == 2000
    with pytest.raises(BrokenRowError, match="1,001 characters, and 1,000 are the most"):
        read("a" * 1000, 1)
    monkeypatch.setattr(layouts, "Expressions", functools.partial(Expressions, 0.05))
    with pytest.raises(BrokenRowError, match="take too long to compile"):
        read(wide, 20)
    monkeypatch.setattr(layouts, "Expressions", functools.partial(Expressions, math.inf))
    assert read(wide, 20) == 20


def test_empty_separator_is_refused() -> None:
    """Answers cannot be told apart by nothing."""
    with pytest.raises(InvalidValueError, match="separator"):
        Columns(separator="")

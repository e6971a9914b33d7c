"""Metrics: what counts as right, and expressions that would never end."""

import time

import pytest

from assay.exceptions import JudgingError
from assay.models import Metric
from assay.services.judging import is_right, last_number


@pytest.mark.parametrize(
    ("metric", "expected", "answer"),
    [
        (Metric.EXACT, ["Paris"], " Paris\n"),
        (Metric.CONTAINS, ["the Seine"], "It lies on The  Seine, in France."),
        (Metric.ANY_OF, ["Lutetia", "Paris"], "paris."),
        (Metric.NUMERIC, ["18"], "9 eggs at $2 make $18."),
        (Metric.NUMERIC, ["1450.5"], "It is 1,450.50 in all"),
        (Metric.NUMERIC, ["-3"], "minus: \N{MINUS SIGN}3"),
        (Metric.NUMERIC, ["20"], "in the range 10-20"),
        (Metric.NUMERIC, ["2000"], "2e3"),
        (Metric.REGEX, [r"^\d{4}-\d{2}$"], "2026-11"),
    ],
)
def test_right_answer_passes(metric: Metric, expected: list[str], answer: str) -> None:
    """Each metric lets through what it is described to let through."""
    assert is_right(metric, expected, answer)


@pytest.mark.parametrize(
    ("metric", "expected", "answer"),
    [
        (Metric.EXACT, ["Paris"], "paris"),
        (Metric.EXACT, ["Paris"], "Paris, France"),
        (Metric.CONTAINS, ["Seine"], "It lies on the Loire."),
        (Metric.ANY_OF, ["Lutetia", "Paris"], "Paris, of course"),
        (Metric.NUMERIC, ["18"], "The answer is 118"),
        (Metric.NUMERIC, ["18"], "18 eggs, of which 3 are left"),
        (Metric.NUMERIC, ["18"], "I do not know"),
        (Metric.NUMERIC, ["2"], "version v2"),
        (Metric.REGEX, [r"^\d+$"], "12a"),
    ],
)
def test_other_answer_does_not_pass(metric: Metric, expected: list[str], answer: str) -> None:
    """Each metric refuses what only looks similar."""
    assert not is_right(metric, expected, answer)


def test_catastrophic_expression_ends_within_its_time() -> None:
    """An expression that backtracks for ever is an error after two seconds, not a lost worker."""
    with pytest.raises(JudgingError, match=r"longer than 2 s|memory or time"):
        is_right(Metric.REGEX, [r"^(a+)+$"], "a" * 64 + "b")


def test_expectation_that_is_no_number_is_an_error() -> None:
    """A numeric test without a number cannot be judged, and says so."""
    with pytest.raises(JudgingError, match="no number"):
        is_right(Metric.NUMERIC, ["many"], "18")


def test_numbers_of_any_size_are_compared_at_once() -> None:
    """An exponent or a length meant to burn time does not."""
    started = time.process_time()
    assert not is_right(Metric.NUMERIC, ["18"], "1e999 " * 10_000)
    assert last_number("9" * 100_000) is not None
    assert last_number("1," * 100_000) is not None
    assert time.process_time() - started < 2

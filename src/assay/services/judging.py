"""Whether an answer is right, by the test's own metric."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Final

from assay.exceptions import JudgingError
from assay.models import Metric
from assay.services.patterns import PatternError, matches

# Neither the 20 of "10-20" is negative, nor the 2 of "v2" a number; commas only group thousands.
_NUMBER: Final = re.compile(
    r"(?<![\w.])(?:(?<!\w)[+-])?[0-9]+(?:(?:,[0-9]{3})+(?![0-9]))?(?:\.[0-9]+)?"
    r"(?:[eE][+-]?[0-9]{1,3}(?![0-9]))?"
)


def is_right(metric: Metric, expected: Sequence[str], answer: str) -> bool:
    """Return whether the answer passes; one of the expected texts is enough.

    exact: the same text, but for blanks around it. contains: the text occurs in the answer,
    whatever the case and the blanks. any_of: the same text, whatever the case, the blanks and the
    punctuation at the end. numeric: the last number of the answer has that value. regex: the
    expression is found somewhere in the answer.

    Raises:
        JudgingError: what is expected is no number, or no expression that can be matched in
            bounded time.
    """
    judge = _JUDGES[metric]
    return any(judge(text, answer) for text in expected)


def last_number(text: str) -> Decimal | None:
    """Return the value of the last number in a text; None if there is none."""
    found = _NUMBER.findall(text.replace("\N{MINUS SIGN}", "-"))
    return Decimal(found[-1].replace(",", "")) if found else None


def _exact(expected: str, answer: str) -> bool:
    return answer.strip() == expected.strip()


def _contains(expected: str, answer: str) -> bool:
    return _folded(expected) in _folded(answer)


def _any_of(expected: str, answer: str) -> bool:
    return _folded(expected).rstrip(".!? ") == _folded(answer).rstrip(".!? ")


def _numeric(expected: str, answer: str) -> bool:
    try:
        value = Decimal(expected.replace(",", ""))
    except InvalidOperation as error:
        raise JudgingError(f"the test expects {expected!r}, which is no number") from error
    return last_number(answer) == value


def _regex(expected: str, answer: str) -> bool:
    try:
        return matches(expected, answer)
    except PatternError as error:
        raise JudgingError(f"the expression {expected!r} cannot be used: {error}") from error


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())


_JUDGES: Final[dict[Metric, Callable[[str, str], bool]]] = {
    Metric.EXACT: _exact,
    Metric.CONTAINS: _contains,
    Metric.ANY_OF: _any_of,
    Metric.NUMERIC: _numeric,
    Metric.REGEX: _regex,
}

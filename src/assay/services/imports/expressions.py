"""Whether text is a regular expression, told in bounded time."""

import re
import time
import warnings
from typing import Final

from assay.exceptions import BrokenRowError

LONGEST_EXPRESSION: Final = 1000
"""Characters; compiling a thousand can take a second, and nothing ends it on the way."""

_SECONDS: Final = 1.0
_SECONDS_EACH: Final = 0.002


class Expressions:
    """The expressions of one file or test: compiled, so long as they take no more than their time.

    A range of all characters takes milliseconds to compile: a file of them would keep a processor,
    and a connection, for hours.
    """

    def __init__(self, seconds: float = _SECONDS) -> None:
        """Allow so much processor time, and a little more for each expression."""
        self._left = seconds

    def check(self, text: str, line: int) -> str:
        """Return an expression as it is written.

        Raises:
            BrokenRowError: it is none, or too long, or those up to it take too much time.
        """
        if len(text) > LONGEST_EXPRESSION:
            raise BrokenRowError(
                line,
                f"a regular expression has {len(text):,} characters, and {LONGEST_EXPRESSION:,} "
                "are the most it may have",
            )
        began = time.thread_time()
        try:
            with warnings.catch_warnings(action="ignore"):  # of syntax that may change some day
                re.compile(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise BrokenRowError(line, f"{text!r} is no regular expression: {error}") from error
        self._left += _SECONDS_EACH - (time.thread_time() - began)
        if self._left < 0:
            raise BrokenRowError(
                line,
                "the regular expressions up to this one take too long to compile: write them "
                "without ranges of thousands of characters",
            )
        return text

"""Regular expressions of strangers, matched where they can take neither all time nor all memory.

Run as a program it reads {"pattern", "text"} from its standard input and answers with {"matched"}
or {"fault"}: an expression that backtracks for ever ends with the process, whatever kind of worker
asked. A thread could not be ended, and a signal reaches a process's main thread alone.
"""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Final

_SECONDS: Final = 2
_BYTES: Final = 512 * 1024 * 1024


class PatternError(Exception):
    """The expression is malformed, or took too long or too much memory."""


def matches(pattern: str, text: str) -> bool:
    """Return whether the expression is found anywhere in the text, within two seconds.

    Raises:
        PatternError: it cannot be told.
    """
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", str(Path(__file__).resolve())],
            input=json.dumps({"pattern": pattern, "text": text}).encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PatternError(f"matching takes longer than {_SECONDS} s") from error
    if answer.returncode != 0:
        raise PatternError("compiling or matching it takes too much memory or time")
    found = json.loads(answer.stdout)
    if "fault" in found:
        raise PatternError(found["fault"])
    return bool(found["matched"])


def _answer(question: dict[str, str]) -> dict[str, object]:
    try:
        return {"matched": re.search(question["pattern"], question["text"]) is not None}
    except (re.error, OverflowError, RecursionError) as error:
        return {"fault": str(error)}


def _main() -> None:
    if sys.platform != "darwin":
        # macOS refuses the limit.
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
    json.dump(_answer(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    _main()

"""A contender in a process of its own, which answers each line of JSON with one."""

import importlib
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy.engine import make_url

from bench.contenders.work import Contender, Places, Row, Size


def main(arguments: list[str]) -> None:
    """Do what each line asks of the module that is named, until the input ends."""
    module = importlib.import_module(f"bench.contenders.{arguments[0]}")
    contender: Contender | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        size = Size(*asked.get("size", (1, 1)))
        match asked["do"]:
            case "prepare":
                module.prepare(Places(*map(make_url, asked["urls"])), size)
                answer: Any = None
            case "open":
                if contender is not None:
                    contender.engine.dispose()
                contender = module.open_contender(make_url(asked["url"]), asked["option"])
                contender.look_up(Row(1, 1))
                answer = contender.backend()
            case "answers":
                answer = _opened(contender).answers(size)
            case "time":
                rows = [Row(*row) for row in asked["rows"]]
                answer = list(timed(getattr(_opened(contender), asked["work"]), rows))
            case "run":
                answer = done(getattr(_opened(contender), asked["work"]), size, asked["seconds"])
            case other:
                raise ValueError(f"{other!r} is nothing that a contender does")
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def timed(work: Callable[[Row], object], rows: list[Row]) -> Iterator[float]:
    """Yield the seconds that the work takes with each row."""
    for row in rows:
        started = time.perf_counter()
        work(row)
        yield time.perf_counter() - started


def done(work: Callable[[Row], object], size: Size, seconds: float) -> float:
    """Return how often a second the work is done, for one tenant after another by chance."""
    choice = random.Random()  # noqa: S311 - not a secret
    count, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < seconds or not count:
        work(Row(choice.randint(1, size.tenants), choice.randint(1, size.rows)))
        count += 1
    return count / passed


def _opened(contender: Contender | None) -> Contender:
    if contender is None:
        raise ValueError("open it first")
    return contender


if __name__ == "__main__":
    main(sys.argv[1:])

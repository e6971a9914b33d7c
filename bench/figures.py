"""What every bench shares: turns, ratios with their spread, goals, tables, JSON, the documents."""

import argparse
import json
import os
import platform
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from rich.console import Console
from rich.table import Table

ROOT: Final = Path(__file__).resolve().parent.parent
RESULTS: Final = ROOT / "bench" / "results"
DOCUMENTS: Final = (ROOT / "docs" / "performance.md", ROOT / "docs" / "search.md")

T = TypeVar("T")
Lines = tuple[list[str], list[list[str]]]


@dataclass(frozen=True, slots=True)
class Spread:
    """A median between its quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Return the spread of some values, of which one may be enough."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        return cls(*statistics.quantiles(values, n=4, method="inclusive"))

    @classmethod
    def of_ratios(cls, own: Sequence[float], base: Sequence[float]) -> Self:
        """Return the spread of what was measured, each by what was measured in the same round."""
        return cls.of([mine / theirs for mine, theirs in zip(own, base, strict=True)])

    def figures(self) -> dict[str, float]:
        """Return it as `of_figures` reads it."""
        return asdict(self)

    @classmethod
    def of_figures(cls, figures: Mapping[str, float]) -> Self:
        """Return what `figures` wrote."""
        return cls(figures["low"], figures["median"], figures["high"])

    def __str__(self) -> str:
        return f"{self.median:,.2f} ({self.low:,.2f} to {self.high:,.2f})"


@dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached, compared with as many decimals as are shown.

    Attributes:
        measured: a spread; a number where something was counted.
        at_least: whether more is better; otherwise it is a bound from above.
    """

    title: str
    bound: float
    measured: Spread | int
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """Whether the median, or the number, is within the bound."""
        value = self.measured if isinstance(self.measured, int) else round(self.measured.median, 2)
        return value >= self.bound if self.at_least else value <= self.bound

    def cells(self) -> tuple[str, str, str, str]:
        """Return the row of a table: what, the goal, what was measured, and whether it is."""
        digits = 0 if isinstance(self.measured, int) else 2
        sign = "≥" if self.at_least else "≤"
        bound = f"{sign} {self.bound:.{digits}f}".replace("-", "\N{MINUS SIGN}")
        measured = str(self.measured).replace("-", "\N{MINUS SIGN}")
        return self.title, bound, measured, "yes" if self.reached else "no"


GOAL_HEADINGS: Final = ("goal", "bound", "measured (quartiles)", "reached")


def turns(names: Sequence[T], number: int) -> list[T]:
    """Return whose turn it is in this round: each begins once, each second time they go back."""
    first = number // 2 % len(names)
    return [*names[first:], *names[:first]][:: -1 if number % 2 else 1]


def about(server: str) -> dict[str, Any]:
    """Return what the figures were measured with."""
    return {
        "postgresql": server,
        "python": platform.python_version(),
        "sqlalchemy": version("sqlalchemy"),
        "psycopg2": version("psycopg2-binary"),
        "machine": f"{platform.machine()}, {platform.system()}",
        "cores": os.cpu_count(),
    }


def measured_with(figures: Mapping[str, Any]) -> str:
    """Return a sentence that says what the figures were measured with."""
    return (
        f"PostgreSQL {figures['postgresql']}, SQLAlchemy {figures['sqlalchemy']}, psycopg2 "
        f"{figures['psycopg2']}, Python {figures['python']}, {figures['cores']} cores."
    )


def parser(program: str, about: str | None) -> argparse.ArgumentParser:
    """Return the options of every bench."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to this file")
    parser.add_argument("--docs", action="store_true", help="rewrite the tables in docs/")
    return parser


def publish(
    figures: Mapping[str, Any],
    options: argparse.Namespace,
    *,
    goals: Sequence[Goal],
    tables: Mapping[str, str],
) -> None:
    """Print the goals, and write the figures and the documents as the options ask."""
    if goals:
        console().print(table("goals", GOAL_HEADINGS, [goal.cells() for goal in goals]))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.docs:
        rewrite(tables)


def console() -> Console:
    """Return a console that is wide enough for the tables where no terminal says how wide it is."""
    return Console(width=None if sys.stdout.isatty() else 140)


def table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return rows whose first column is words and whose others are figures."""
    shown = Table(title=title)
    for number, heading in enumerate(headings):
        shown.add_column(heading, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    return shown


def pivot(cells: Sequence[Mapping[str, str]]) -> Lines:
    """Return headings and rows from cells with `row`, `column` and `cell`, in their order."""
    columns = list(dict.fromkeys(each["column"] for each in cells))
    rows: dict[str, dict[str, str]] = {}
    for each in cells:
        rows.setdefault(each["row"], {})[each["column"]] = each["cell"]
    lines = [[row, *(found.get(column, "") for column in columns)] for row, found in rows.items()]
    return ["", *columns], lines


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the same as Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (headings, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(headings), *lines[1:]])


def rewrite(tables: Mapping[str, str], documents: Sequence[Path] = DOCUMENTS) -> None:
    """Put each text between its marks, `<!-- bench: name -->` and `<!-- end -->`.

    Raises:
        ValueError: no document has the marks of this name.
    """
    texts = {document: document.read_text() for document in documents}
    for name, between in tables.items():
        begin, end = f"<!-- bench: {name} -->\n", "<!-- end -->"
        marked = re.compile(f"{re.escape(begin)}(?:(?!<!-- bench: ).)*?{end}", re.DOTALL)
        parts = {document: marked.split(text) for document, text in texts.items()}
        if all(len(part) == 1 for part in parts.values()):
            raise ValueError(f"no document has <!-- bench: {name} --> … <!-- end -->")
        new = f"{begin}{between.strip()}\n{end}"
        texts = {document: new.join(part) for document, part in parts.items()}
    for document, text in texts.items():
        document.write_text(text)

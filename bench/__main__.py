"""The whole suite, one part after the other, and in the end one table of what was to be reached.

Each part is a command of its own too (`python -m bench.context --help`) and compares within one
run. The figures go into bench/results/, the documents' tables and chart follow from them. The exit
status is 0 where everything was measured, whatever came of it; 1 where a part failed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, Protocol, cast

from bench import peers
from bench.figures import GOAL_HEADINGS, RESULTS, ROOT, Goal, console, markdown, rewrite, table

PARTS: Final = {
    "context": "round trips, and what a tenant costs a unit of work",
    "shapes": "each kind of query, plans, partitions",
    "search": "search inside a tenant",
    "throughput": "transactions a second of eight clients",
    "peers": "other ways of keeping tenants apart",
    "footprint": "import time and memory",
}
QUICK_RESULTS: Final = ROOT / ".bench" / "quick"


class Part(Protocol):
    """A module of the suite: what follows from the figures that its command wrote."""

    def goals(self, figures: Mapping[str, Any]) -> Sequence[Goal]:
        """Return what was to be reached, beside what was measured."""

    def tables(self, figures: Mapping[str, Any]) -> Mapping[str, str]:
        """Return the Markdown that belongs between the marks of each name in the documents."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if a part failed."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="parts: " + "; ".join(f"{name}, {what}" for name, what in PARTS.items()),
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: it works")
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="default bench/results/")
    parser.add_argument("--docs", action="store_true", help="rewrite the tables and draw the chart")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", default=list(PARTS))
    parser.add_argument("--without", nargs="+", choices=PARTS, metavar="PART", default=[])
    chosen = parser.parse_args(arguments)
    if chosen.quick and chosen.docs:
        parser.error("--quick measures too little for the documents")
    folder: Path = chosen.json or (QUICK_RESULTS if chosen.quick else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in PARTS if name in chosen.only and name not in chosen.without]
    failed = [name for name in wanted if not run(name, folder, quick=chosen.quick)]
    found = {
        name: json.loads((folder / f"{name}.json").read_text())
        for name in wanted
        if name not in failed
    }
    rows = goal_rows(found)
    console().print(table("goals", GOAL_HEADINGS, rows))
    for name in failed:
        console().print(f"{name} failed; what it said is above")
    if chosen.docs and not document(found, rows if len(found) == len(PARTS) else None):
        return 1
    return 1 if failed else 0


def run(name: str, folder: Path, *, quick: bool) -> bool:
    """Run one part, and return whether it wrote its figures."""
    console().rule(f"{name}: {PARTS[name]}")
    started = time.monotonic()
    command = [sys.executable, "-m", f"bench.{name}", "--json", str(folder / f"{name}.json")]
    done = subprocess.run([*command, *(["--quick"] if quick else [])], cwd=ROOT, check=False)
    console().print(f"{name} took {time.monotonic() - started:.0f} s")
    return done.returncode == 0


def part(name: str) -> Part:
    """Return the module."""
    return cast("Part", import_module(f"bench.{name}"))


def goal_rows(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Return all parts' goals as the rows of a table."""
    return [goal.cells() for name, figures in found.items() for goal in part(name).goals(figures)]


def document(found: Mapping[str, Any], goals: Sequence[Sequence[str]] | None) -> bool:
    """Rewrite the documents' tables and the chart; the goals only where all parts were run.

    Returns whether there was a place for everything; what there was none for is told.
    """
    if "peers" in found:
        peers.CHART.write_text(peers.drawn(found["peers"]))
    texts = [part(name).tables(figures) for name, figures in found.items()]
    if goals is not None:
        texts.append({"goals": markdown(GOAL_HEADINGS, goals)})
    complete = True
    for text in texts:
        try:
            rewrite(text)
        except ValueError as error:
            console().print(error)
            complete = False
    return complete


if __name__ == "__main__":
    sys.exit(main())

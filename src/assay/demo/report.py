"""What the demonstration prints: steps with their time, what is seen, what came of the attacks."""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from assay.demo.scene import Player, Sight
from tenantry.testing.attacks import Outcome
from tenantry.testing.attacks_arena import Situation
from tenantry.testing.attacks_surfaces import Surface
from tenantry.testing.matrix import SITUATIONS, SURFACES

_WIDTH: Final = 120
_CONTEXTS: Final[dict[Situation, str]] = {
    "own tenant": "own",
    "no tenant": "none",
    "after commit": "commit",
    "after rollback": "rollback",
    "reused connection": "reused",
    "reused, no tenant": "reused+none",
}
# The row names the table already, and the JSON has the messages in full.
_SHORT: Final = (
    (re.compile(r'new row violates row-level security policy for table "[^"]*"'), "row security"),
    (re.compile(r'permission denied for table "?[^";]*"?'), "permission denied"),
    (
        re.compile(r'insert or update on table "[^"]*" violates (foreign key) constraint "[^"]*"'),
        r"\1",
    ),
    (re.compile(r"; the same for an absent value"), ", as for an absent value"),
)
_LEGEND: Final = (
    "own: the attacker's own tenant. none: no tenant. commit, rollback: after one, on a connection "
    "that the victim had before. reused: on such a connection; reused+none: without a tenant."
)


class Step:
    """A step under way; `done` is what its line will say."""

    done = ""


class Report:
    """Prints to a terminal, a pipe or a file; without colour where there is no terminal."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self.console = Console(stderr=to_stderr, highlight=False)
        if not self.console.is_terminal:
            self.console = Console(stderr=to_stderr, highlight=False, width=_WIDTH)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Print one line when the step is done, with the seconds it took."""
        step = Step()
        begun = time.monotonic()
        with self.console.status(f"{name} …"):
            yield step
        line = Text(f"{time.monotonic() - begun:6.2f} s  ", style="dim")
        line.append(name, style="bold")
        if step.done:
            line.append(f": {step.done}", style="not bold not dim")
        self.console.print(line, soft_wrap=True)

    def say(self, message: str, style: str = "") -> None:
        """Print one line."""
        self.console.print(Text(message, style=style), soft_wrap=True)

    def show_sights(self, players: tuple[Player, ...], sights: Iterable[Sight]) -> None:
        """Print how many rows each player sees of each table."""
        table = Table(
            title="Rows that the application role sees",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("table")
        for player in players:
            table.add_column(player.name, justify="right")
        table.add_column("no tenant", justify="right")
        table.add_column("in the database", justify="right")
        for sight in sights:
            total = "" if sight.total is None else str(sight.total)
            table.add_row(sight.table, *map(str, sight.players), str(sight.nobody), total)
        self.console.print(table)

    def show_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Print each attack with how it was stopped, those that came to the same in one row."""
        rows = gathered(outcomes)
        for name in dict.fromkeys(row.table for row in rows):
            table = Table(
                title=f"Attacks on {name}",
                title_justify="left",
                box=box.SIMPLE_HEAD,
                pad_edge=False,
            )
            for column in ("attack", "surface", "context"):
                table.add_column(column)
            table.add_column("tried", justify="right")
            table.add_column("how it was stopped", overflow="fold")
            for row in rows:
                if row.table == name:
                    table.add_row(*_cells(row))
            self.console.print(table)
        self.console.print(Text(_LEGEND, style="dim"), soft_wrap=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """Attacks that came to the same: each of these surfaces in each of these situations."""

    command: str
    table: str
    surfaces: tuple[Surface, ...]
    situations: tuple[Situation, ...]
    tried: int
    how: str
    stopped: bool


def _cells(row: Gathered) -> tuple[str | Text, ...]:
    contexts = ", ".join(_CONTEXTS[situation] for situation in row.situations)
    return (
        row.command,
        "all" if row.surfaces == SURFACES else ", ".join(row.surfaces),
        "all" if row.situations == SITUATIONS else contexts,
        str(row.tried),
        Text(row.how, style="green" if row.stopped else "bold white on red"),
    )


def gathered(outcomes: Iterable[Outcome]) -> list[Gathered]:
    """Return the outcomes by command and table, those that came to the same taken together."""
    by_attack: dict[tuple[str, str], dict[tuple[Surface, str, bool], list[Situation]]] = {}
    for outcome in outcomes:
        attack = outcome.attack
        of_attack = by_attack.setdefault((attack.command, attack.table), {})
        alike = (attack.surface, _how(outcome), outcome.stopped)
        of_attack.setdefault(alike, []).append(attack.situation)
    rows = []
    for (command, table), of_attack in by_attack.items():
        merged: dict[tuple[tuple[Situation, ...], str, bool], list[tuple[Surface, int]]] = {}
        for (surface, how, stopped), situations in of_attack.items():
            alike_too = (tuple(dict.fromkeys(situations)), how, stopped)
            merged.setdefault(alike_too, []).append((surface, len(situations)))
        rows += [
            Gathered(
                command=command,
                table=table,
                surfaces=tuple(surface for surface, _ in surfaces),
                situations=in_situations,
                tried=sum(tried for _, tried in surfaces),
                how=how,
                stopped=stopped,
            )
            for (in_situations, how, stopped), surfaces in merged.items()
        ]
    return rows


def _how(outcome: Outcome) -> str:
    """Return how it was stopped, without names that the row has already and without advice."""
    if not outcome.stopped:
        return f"{outcome.verdict.upper()}: {outcome.how}"
    kind, _, message = outcome.how.partition(": ")
    if kind.endswith("Error"):
        return kind
    shown = f"{kind} {message}" if message else kind
    for pattern, short in _SHORT:
        shown = pattern.sub(short, shown)
    return shown

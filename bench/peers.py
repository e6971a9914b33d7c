"""What others cost and guarantee, on the same work, beside this layer and explicit filters.

The packages `rls` and `sqlalchemy-tenants`, a schema for each tenant, and Tenantry, against the
same program with a filter by the tenant in every query and no row-level security. All have the same
rows on the same server, psycopg2, a pool of SQLAlchemy's defaults, and a process of the same
environment for each, in which the packages are installed on first use (bench/peers.txt). They take
turns, some units of work at a time; a ratio is that of the medians of one round. `look up` is a
Session, one object by its key and a commit; `mix` is the newest fifty, one by its key, and a change
of that one, in a transaction. Then each is asked what can be seen of other tenants' rows.
"""

import hashlib
import itertools
import os
import statistics
import subprocess
import sys
import venv
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.progress import track

from bench.chart import peers_chart
from bench.contenders.work import Size
from bench.figures import (
    ROOT,
    Goal,
    Spread,
    about,
    console,
    markdown,
    measured_with,
    parser,
    publish,
    table,
    turns,
)
from bench.stage import BASE, VARIANTS, Player, Stage, Variant
from bench.wire import Wire, remote
from tenantry.testing.servers import find_server

DELAY: Final = 0.001
WORKS: Final = {"look_up": "look up", "mix": "mix"}
PLACES: Final = ("local", "1 ms")
PACKAGES: Final = ROOT / "bench" / "peers.txt"
ENVIRONMENT: Final = ROOT / ".bench" / "peers"
CHART: Final = ROOT / "docs" / "performance.svg"
QUESTIONS: Final = {
    "pooled": "a plain Connection, after a Session of the same pool was committed",
    "inherited": "the Connection of a Session, after another tenant's was committed",
    "again": "a Session after its commit, when another has its connection",
    "forgotten": "a query without a filter",
    "foreign": "a new row of another tenant's",
}


def environment() -> Path:
    """Return the interpreter of the peers' environment, which is made where it is missing.

    Raises:
        RuntimeError: the packages cannot be had.
    """
    wanted = hashlib.sha256(PACKAGES.read_bytes()).hexdigest()
    mark, python = ENVIRONMENT / "installed", ENVIRONMENT / "bin" / "python"
    if not mark.exists() or mark.read_text() != wanted:
        console().print(f"Installing {PACKAGES.name} into {ENVIRONMENT.relative_to(ROOT)}")
        venv.create(ENVIRONMENT, clear=True, symlinks=os.name != "nt", with_pip=True)
        pip = (python, "-m", "pip", "--quiet", "--disable-pip-version-check", "install")
        done = subprocess.run((*pip, "--require-hashes", "--requirement", PACKAGES), check=False)
        if done.returncode:
            rest = " ".join(repr(variant.name) for variant in VARIANTS if not variant.is_peer)
            raise RuntimeError(
                "pip could not install what bench/peers.txt names, as it says above: without it "
                f"there is --only {rest}"
            )
        mark.write_text(wanted)
    return python


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    options = parser("bench.peers", __doc__)
    options.add_argument("--tenants", type=int, help="default 1,000, quick 100")
    options.add_argument("--rounds", type=int, help="each with a ratio (default 40, quick 6)")
    options.add_argument("--units", type=int, default=5, help="units of work in a turn")
    options.add_argument(
        "--only",
        nargs="+",
        choices=[variant.name for variant in VARIANTS],
        metavar="NAME",
        help="of these, beside explicit filters; rls and sqlalchemy-tenants need PyPI",
    )
    chosen = options.parse_args(arguments)
    size = Size(chosen.tenants or (100 if chosen.quick else 1000), 100)
    rounds = chosen.rounds or (6 if chosen.quick else 40)
    names = {BASE, *(chosen.only or (variant.name for variant in VARIANTS))}
    variants = [variant for variant in VARIANTS if variant.name in names]
    is_one = any(variant.is_peer for variant in variants)
    python = environment() if is_one else Path(sys.executable)
    with find_server("embedded") as server, ExitStack() as stack:
        stage = Stage(server, size, python)
        for variant in track(variants, description="data", transient=True):
            stage.prepare(variant)
        figures = about(server.version) | {"tenants": size.tenants, "rows": size.rows}
        players = {each: stack.enter_context(stage.player(each)) for each in variants}
        figures["round_trips"] = trips(stage, players)
        figures["answers"] = answers(stage, players)
        for place in PLACES:
            figures[place] = measure(stage, players, place, rounds=rounds, units=chosen.units)
    console().print(table("by explicit filters", headings(), ratios(figures)))
    console().print(table("which rows are seen", ("", *QUESTIONS), shown_answers(figures)))
    publish(figures, chosen, goals=goals(figures), tables=tables(figures))
    if chosen.docs:
        CHART.write_text(drawn(figures))
    return 0


def trips(stage: Stage, players: Mapping[Variant, Player]) -> dict[str, int]:
    """Return how often a look-up of each variant waits for the server."""
    row = stage.row(1)
    asked = {"do": "time", "work": "look_up", "rows": [[row.tenant, row.number]]}
    counted = {}
    for variant, player in players.items():
        with Wire(stage.url(variant)) as wire:
            stage.open(player, variant, wire.url)
            player.ask(**asked)
            wire.clear()
            player.ask(**asked)
            counted[variant.name] = wire.trips
    return counted


def answers(stage: Stage, players: Mapping[Variant, Player]) -> dict[str, dict[str, str]]:
    """Return what each variant shows to whom."""
    found = {}
    for variant, player in players.items():
        stage.open(player, variant)
        size = [stage.size.tenants, stage.size.rows]
        found[variant.name] = player.ask(do="answers", size=size)
    return found


def measure(
    stage: Stage, variants: Mapping[Variant, Player], place: str, *, rounds: int, units: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return the figures of each work and variant."""
    players = {variant.name: player for variant, player in variants.items()}
    with ExitStack() as stack:
        urls = {stage.url(variant) for variant in variants}
        if place != "local":
            away = {url: stack.enter_context(remote(url, DELAY)) for url in urls}
        else:
            away = {url: url for url in urls}
        for variant, player in variants.items():
            stage.open(player, variant, away[stage.url(variant)])
        numbers = itertools.count()
        medians: dict[str, dict[str, list[float]]] = {
            work: {name: [] for name in players} for work in WORKS
        }

        def turn(name: str, work: str, rows: list[list[int]]) -> float:
            times: list[float] = players[name].ask(do="time", work=work, rows=rows)
            return statistics.median(times)

        def rows(count: int) -> list[list[int]]:
            taken = [stage.row(next(numbers)) for _ in range(count)]
            return [[row.tenant, row.number] for row in taken]

        for work in WORKS:
            # Each tenant once, so that no variant meets a catalog entry for the first time.
            warm = rows(stage.size.tenants if place == "local" else 10)
            for name in players:
                turn(name, work, warm)
            for number in track(range(rounds), description=f"{work}, {place}", transient=True):
                same = rows(units)
                for name in turns(list(players), number):
                    medians[work][name].append(turn(name, work, same))
    return {
        work: {
            name: {"us": 1e6 * statistics.median(own)}
            | Spread.of_ratios(own, found[BASE]).figures()
            for name, own in found.items()
        }
        for work, found in medians.items()
    }


def headings() -> list[str]:
    """Return the headings of the ratios."""
    return ["", "round trips", *(f"{WORKS[work]}, {place}" for work in WORKS for place in PLACES)]


def ratios(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the ratios as the rows of a table."""
    return [
        [
            name,
            str(trips),
            *(
                f"1.00 ({figures[place][work][name]['us'] / 1000:,.2f} ms)"
                if name == BASE
                else str(Spread.of_figures(figures[place][work][name]))
                for work in WORKS
                for place in PLACES
            ),
        ]
        for name, trips in figures["round_trips"].items()
    ]


def shown_answers(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the answers as the rows of a table, alike variants in one."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for name, given in figures["answers"].items():
        rows.setdefault(tuple(given[question] for question in QUESTIONS), []).append(name)
    return [[" · ".join(names), *given] for given, names in rows.items()]


def drawn(figures: Mapping[str, Any]) -> str:
    """Return the chart."""
    return peers_chart(figures, works=WORKS, places=PLACES, base=BASE)


def goals(_: Mapping[str, Any]) -> list[Goal]:
    """Return none: what others cost is no goal of ours."""
    return []


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the documents."""
    measured = markdown(headings(), ratios(figures))
    size = f"{figures['tenants']:,} tenants with {figures['rows']:,} rows each."
    return {
        "peers": f"{measured}\n\n{measured_with(figures)} {size}",
        "answers": markdown(("", *QUESTIONS.values()), shown_answers(figures)),
    }


if __name__ == "__main__":
    sys.exit(main())

"""Transactions a second of eight clients, each for a tenant by chance, by explicit filters' own.

A transaction is the newest fifty rows, one by its key, and a change of that one. `program` is
SQLAlchemy in eight processes, whose own work takes most of the time where both share a few cores;
`server` is pgbench, which sends the messages that one such transaction was seen to send on the
wire, and does nothing else. `pgbouncer` pools by transaction, four connections for the eight. The
variants take turns, slice by slice; a ratio is that of two slices of one round.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.progress import Progress, track
from sqlalchemy.engine import URL

from bench.contenders.work import FIRST, ITEMS, ROWS, TENANTS, Row, Size
from bench.figures import (
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
from bench.pooler import find_pooler, pooler, through
from bench.stage import BASE, VARIANTS, Player, Stage, Variant
from bench.wire import Wire
from tenantry.embedded.binaries import find_binaries
from tenantry.testing.servers import find_server

GOAL: Final = 0.97
POOLED: Final = 4
WORK: Final = "mix"
PLACES: Final = ("direct", "pgbouncer")
SENDERS: Final = ("program", "server")
AIMED: Final = ("tenantry", "tenantry, transaction, begin")
BESIDE: Final = ("tenantry, transaction", "schema per tenant, search_path")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    options = parser("bench.throughput", __doc__)
    options.add_argument("--tenants", type=int, help="default 1,000, quick 50")
    options.add_argument("--rounds", type=int, help="each with a ratio (default 8, quick 2)")
    options.add_argument(
        "--seconds", type=float, help="of a slice (default 1, quick 0.5; pgbench takes whole ones)"
    )
    options.add_argument("--clients", type=int, default=8)
    options.add_argument(
        "--goals-only", action="store_true", help="the variants with a goal, and explicit filters"
    )
    chosen = options.parse_args(arguments)
    size = Size(chosen.tenants or (50 if chosen.quick else 1000), 100)
    rounds = chosen.rounds or (2 if chosen.quick else 8)
    seconds = chosen.seconds or (0.5 if chosen.quick else 1.0)
    names = (BASE, *AIMED) if chosen.quick or chosen.goals_only else (BASE, *AIMED, *BESIDE)
    compared = [variant for variant in VARIANTS if variant.name in names]
    places = [place for place in PLACES if place == "direct" or find_pooler()]
    if len(places) < len(PLACES):
        console().print("pgbouncer is left out: it is not installed (apt install pgbouncer)")
    with find_server("embedded") as server, ExitStack() as stack:
        stage = Stage(server, size)
        for variant in track(compared, description="data", transient=True):
            stage.prepare(variant)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        figures = about(server.version) | {"clients": chosen.clients, "seconds": seconds}
        figures |= {"tenants": size.tenants, "rows": size.rows}
        players = {
            each: [stack.enter_context(stage.player(each)) for _ in range(chosen.clients)]
            for each in compared
        }
        address = stack.enter_context(pooler(server, pool_size=POOLED)) if len(places) > 1 else None
        for place in places:
            urls = {
                each: stage.url(each)
                if place == "direct" or address is None
                else through(stage.url(each), address)
                for each in compared
            }
            scripts = {
                each: write_script(stage, players[each][0], each, urls[each], folder)
                for each in compared
            }
            figures[place] = measure(
                players, urls, scripts, size, place, rounds=rounds, seconds=seconds
            )
    console().print(table("by explicit filters", headings(figures), shown(figures)))
    publish(figures, chosen, goals=goals(figures), tables=tables(figures))
    return 0


def measure(
    players: Mapping[Variant, Sequence[Player]],
    urls: Mapping[Variant, URL],
    scripts: Mapping[Variant, Path],
    size: Size,
    place: str,
    *,
    rounds: int,
    seconds: float,
) -> dict[str, dict[str, dict[str, float]]]:
    """Return each sender's and variant's transactions a second, and the ratios."""

    def together(variant: Variant, **asked: Any) -> list[float]:
        for player in players[variant]:
            player.tell(**asked)
        return [player.told() for player in players[variant]]

    def program(variant: Variant) -> float:
        asked = {"do": "run", "work": WORK, "seconds": seconds}
        return sum(together(variant, **asked, size=[size.tenants, size.rows]))

    def server(variant: Variant) -> float:
        return pgbench(scripts[variant], urls[variant], size, len(players[variant]), seconds)

    for variant, url in urls.items():
        target = url.render_as_string(hide_password=False)
        together(variant, do="open", url=target, option=variant.option)
        program(variant)
    rates: dict[str, dict[str, list[float]]] = {
        sender: {variant.name: [] for variant in urls} for sender in SENDERS
    }
    with Progress(console=console(), transient=True) as progress:
        task = progress.add_task(place, total=rounds * len(SENDERS) * len(urls))
        for number in range(rounds):
            for sender, run in zip(SENDERS, (program, server), strict=True):
                for variant in turns(list(urls), number):
                    rates[sender][variant.name].append(run(variant))
                    progress.advance(task)
    return {
        sender: {
            name: {"per_second": statistics.median(own)}
            | Spread.of_ratios(own, found[BASE]).figures()
            for name, own in found.items()
        }
        for sender, found in rates.items()
    }


def write_script(stage: Stage, player: Player, variant: Variant, url: URL, folder: Path) -> Path:
    """Return pgbench's script of what one transaction of the variant sends."""
    row = Row(1, 2)
    with Wire(url) as wire:
        stage.open(player, variant, wire.url)
        wire.clear()
        player.ask(do="time", work=WORK, rows=[[row.tenant, row.number]])
        messages = list(wire.queries)
    path = folder / f"{variant.name}.sql"
    path.write_text(script(messages, row))
    return path


def script(messages: Sequence[str], row: Row) -> str:
    """Return the messages for any row instead of this one, each still one message."""
    lines = [
        r"\set t random(1, :tenants)",
        rf"\set tenant {FIRST} + :t",
        rf"\set item {FIRST} + {ROWS} * :t + random(1, :rows)",
    ]
    for message in messages:
        several = message.strip().removesuffix(";").replace(";", r"\;")
        for value, variable in ((row.owner, f"{TENANTS}:tenant"), (row.id, f"{ITEMS}:item")):
            several = several.replace(str(value), variable)
        lines.append(f"{several};")
    return "\n".join(lines) + "\n"


def pgbench(script: Path, url: URL, size: Size, clients: int, seconds: float) -> float:
    """Return the transactions a second of so many clients.

    Raises:
        RuntimeError: pgbench failed, or some of its transactions did.
    """
    program = Path(find_binaries().psql).with_name("pgbench")
    target = ("--host", str(url.host), "--port", str(url.port), "--username", str(url.username))
    # As many threads as clients would be more than there are cores.
    threads = min(clients, os.cpu_count() or 1)
    load = ("--client", str(clients), "--jobs", str(threads), "--time", f"{max(1, seconds):.0f}")
    done = subprocess.run(
        (
            *(program, "--no-vacuum", "--protocol=simple", *load, *target),
            *("--define", f"tenants={size.tenants}", "--define", f"rows={size.rows}"),
            *("--file", script, str(url.database)),
        ),
        env=os.environ | {"PGPASSWORD": str(url.password)},
        capture_output=True,
        text=True,
        check=False,
    )
    rate = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
    if done.returncode or rate is None or "failed transactions: 0 " not in done.stdout:
        raise RuntimeError(f"{script.name}: pgbench failed\n{done.stdout}\n{done.stderr}")
    return float(rate[1])


def headings(figures: Mapping[str, Any]) -> list[str]:
    """Return the headings of the ratios."""
    places = [place for place in PLACES if place in figures]
    return ["", *(f"{place}, {sender}" for place in places for sender in SENDERS)]


def shown(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the ratios as the rows of a table."""
    cells = {
        heading: figures[place][sender]
        for heading in headings(figures)[1:]
        for place, sender in (heading.split(", "),)
    }
    return [
        [
            name,
            *(
                f"1.00 ({found[BASE]['per_second']:,.0f}/s)"
                if name == BASE
                else str(Spread.of_figures(found[name]))
                for found in cells.values()
            ),
        ]
        for name in figures["direct"]["program"]
    ]


def goals(figures: Mapping[str, Any]) -> list[Goal]:
    """Return what was to be reached: with the defaults, and with everything in one message."""
    return [
        Goal(
            f"throughput, {place}, {sender}, {name}",
            GOAL,
            Spread.of_figures(figures[place][sender][name]),
            at_least=True,
        )
        for place in PLACES
        if place in figures
        for sender in SENDERS
        for name in AIMED
    ]


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the documents."""
    measured = markdown(headings(figures), shown(figures))
    size = f"{figures['tenants']:,} tenants with {figures['rows']:,} rows each."
    return {"throughput": f"{measured}\n\n{measured_with(figures)} {size}"}


if __name__ == "__main__":
    sys.exit(main())

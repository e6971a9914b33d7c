"""What the layer weighs: the time to import it, and the memory of a connection and of a client.

Imports are timed in a fresh interpreter each, by turns. Memory is what a process has for itself
(RssAnon), of the server's process behind one pooled connection and of the client, when the
connection is new and when it has served each tenant once; Linux tells it, other systems do not.
"""

import re
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from rich.progress import track

from bench.contenders.work import Size
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
from bench.stage import BASE, VARIANTS, Stage
from tenantry.testing.servers import find_server

IMPORTS: Final = {
    "sqlalchemy, psycopg2": "import sqlalchemy.orm, psycopg2",
    "tenantry": "import tenantry",
}
_TIMED: Final = """
import sys, time
started = time.perf_counter()
{statement}
print(time.perf_counter() - started)
print(*sorted({{name.partition(".")[0] for name in sys.modules}} - sys.stdlib_module_names))
"""
HEADINGS: Final = (
    *("", "new connection", "after all tenants", "grown", "new client", "client after all tenants"),
)
WEIGHED: Final = (BASE, "tenantry", "schema per tenant, search_path")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    options = parser("bench.footprint", __doc__)
    options.add_argument("--tenants", type=int, help="default 1,000, quick 50")
    options.add_argument("--rounds", type=int, help="of imports (default 20, quick 3)")
    chosen = options.parse_args(arguments)
    figures: dict[str, Any] = imports(chosen.rounds or (3 if chosen.quick else 20))
    rows = shown_imports(figures)
    console().print(table("import", ("", "ms", "ratio"), rows))
    with find_server("embedded") as server:
        figures |= about(server.version)
        figures["tenants"] = chosen.tenants or (50 if chosen.quick else 1000)
        if Path("/proc/self/status").exists():
            stage = Stage(server, Size(figures["tenants"], 10))
            figures["memory"] = memory(stage)
            title = f"kB of one connection, before and after {figures['tenants']:,} tenants"
            console().print(table(title, HEADINGS, shown_memory(figures)))
        else:
            console().print("memory is left out: this system has no /proc")
    publish(figures, chosen, goals=goals(figures), tables=tables(figures))
    return 0


def imports(rounds: int) -> dict[str, Any]:
    """Return how long the imports take, and what other packages ours loads."""
    seconds: dict[str, list[float]] = {name: [] for name in IMPORTS}
    loaded: dict[str, set[str]] = {}
    for number in track(range(rounds), description="imports", transient=True):
        for name in turns(list(IMPORTS), number):
            program = _TIMED.format(statement=IMPORTS[name])
            done = subprocess.run(
                (sys.executable, "-c", program), capture_output=True, text=True, check=True
            )
            time, names = done.stdout.splitlines()
            seconds[name].append(float(time))
            loaded[name] = set(names.split())
    base, own = IMPORTS
    return {
        "imports": {
            name: {"ms": 1000 * statistics.median(times)}
            | Spread.of_ratios(times, seconds[base]).figures()
            for name, times in seconds.items()
        },
        "loaded_besides": sorted(loaded[own] - loaded[base] - {own}),
    }


def memory(stage: Stage) -> dict[str, dict[str, int]]:
    """Return the kB of each variant's backend and client."""
    found = {}
    weighed = [each for each in VARIANTS if each.name in WEIGHED]
    for variant in track(weighed, description="memory", transient=True):
        stage.prepare(variant)
        with ExitStack() as stack:
            player = stack.enter_context(stage.player(variant))
            processes = {"backend": player.backend, "client": player.process.pid}
            new = {name: private(pid) for name, pid in processes.items()}
            rows = [[number, 1] for number in range(1, stage.size.tenants + 1)]
            player.ask(do="time", work="look_up", rows=rows)
            found[variant.name] = {
                "backend_new": new["backend"],
                "backend": private(processes["backend"]),
                "client_new": new["client"],
                "client": private(processes["client"]),
            }
    return found


def private(pid: int) -> int:
    """Return the kB that a process shares with no file and no other process's memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    kilobytes = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    if kilobytes is None:
        raise RuntimeError(f"the system does not tell the memory of process {pid}")
    return int(kilobytes[1])


def shown_imports(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the times as the rows of a table."""
    return [
        [
            name,
            f"{figure['ms']:,.0f}",
            "1.00" if name in IMPORTS and number == 0 else str(Spread.of_figures(figure)),
        ]
        for number, (name, figure) in enumerate(figures["imports"].items())
    ]


def shown_memory(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the memory as the rows of a table."""
    return [
        [
            name,
            *(
                f"{kilobytes:,}"
                for kilobytes in (
                    figure["backend_new"],
                    figure["backend"],
                    figure["backend"] - figure["backend_new"],
                    figure["client_new"],
                    figure["client"],
                )
            ),
        ]
        for name, figure in figures.get("memory", {}).items()
    ]


def goals(_: Mapping[str, Any]) -> list[Goal]:
    """Return none: it is shown."""
    return []


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the documents."""
    besides = ", ".join(f"`{name}`" for name in figures["loaded_besides"])
    times = markdown(("import", "ms", "ratio"), shown_imports(figures))
    found = {"imports": f"{times}\n\nLoaded besides: {besides}."}
    if "memory" in figures:
        kilobytes = markdown(HEADINGS, shown_memory(figures))
        size = f"{figures['tenants']:,} tenants; kB."
        found["memory"] = f"{kilobytes}\n\n{measured_with(figures)} {size}"
    return found


if __name__ == "__main__":
    sys.exit(main())

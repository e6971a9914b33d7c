"""What the tenant layer costs a background task, against a plain `celery.Task` in the same run.

Each variant has a worker of its own, with one process, on the same broker: `plain` is celery.Task
without Tenantry, `tenant` is BaseTask, `session` a BaseTask that is handed its Session, `recorded`
the same with a record of each task. Blocks of the variants alternate (A B C D D C B A …); a ratio
is that of the two blocks of one round, so that what else the machine does meets both. Launches are
counted in this process, and executions by the worker, which finds a full queue.
"""

import argparse
import itertools
import json
import operator
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.orm import sessionmaker

from assay.models import Base
from assay.services.organizations import create_organization
from bench.task_app import VARIABLE, VARIANTS, Place, Variant, make_app
from tenantry import Tenant, create_tenant_engine
from tenantry.celery import publishing_for, task_launcher
from tenantry.embedded import EmbeddedServer

ROOT: Final = Path(__file__).resolve().parent.parent
GOAL: Final = 0.95
_ARGUMENTS: Final = (7, "a task's argument of some length, such as a question has")
_READY_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Principal:
    """Who launches the recorded tasks."""

    organization_id: uuid.UUID
    id: None = None


@dataclass(frozen=True, slots=True)
class Site:
    """A server for rows and records, and the brokers that are compared on."""

    server: EmbeddedServer
    organization: uuid.UUID
    brokers: dict[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a block of tasks took, in seconds: of the clock, and of a processor."""

    wall: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Runner:
    """One variant's publisher and worker."""

    app: Any
    publish: Callable[[], object]
    folder: Path

    def run(self, count: int) -> dict[str, Cost]:
        """Return what so many launches took, and so many executions."""
        gate = self.folder / str(uuid.uuid4())
        opened = self.app.tasks["gate"].delay(str(gate))
        began, used = time.perf_counter(), time.process_time()
        for _ in range(count):
            self.publish()
        launched = Cost(time.perf_counter() - began, time.process_time() - used)
        finished = self.app.tasks["finish"].delay()
        gate.touch()
        ended, started = finished.get(timeout=300), opened.get(timeout=300)
        return {"launched": launched, "executed": Cost(*map(operator.sub, ended, started))}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.tasks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few and small blocks: it works")
    parser.add_argument("--rounds", type=int, help="blocks of each variant (default 14, quick 2)")
    parser.add_argument("--tasks", type=int, help="tasks of a block (default 300, quick 40)")
    parser.add_argument("--pool", choices=("prefork", "solo", "threads"), default="prefork")
    parser.add_argument("--broker", choices=("postgresql", "redis"), help="one of them alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what every block took")
    options = parser.parse_args(arguments)
    rounds = options.rounds or (2 if options.quick else 14)
    count = options.tasks or (40 if options.quick else 300)
    console = Console()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as name, prepared(Path(name)) as site:
        for broker in ("postgresql", "redis"):
            if options.broker not in {None, broker}:
                continue
            if broker not in site.brokers:
                console.print("redis is left out: redis-server is not installed")
                continue
            found[broker] = measure(site, broker, options.pool, rounds, count, Path(name))
            console.print(table(broker, options.pool, found[broker], count))
    console.print(
        f"{rounds} rounds of {count} tasks. A second and ratio are medians, by the clock, and the "
        "spread is the ratio's quartiles; cpu is of the publisher or the worker, and bears a busy "
        f"machine. Ratios are plain by variant in time: the goal is {GOAL} for tenant; records are "
        "apart.",
        highlight=False,
    )
    if options.json:
        about = {"python": platform.python_version(), "pool": options.pool, "tasks": count}
        blocks = {
            broker: {
                variant: {what: [asdict(cost) for cost in costs] for what, costs in kinds.items()}
                for variant, kinds in variants.items()
            }
            for broker, variants in found.items()
        }
        options.json.write_text(json.dumps(about | {"seconds": blocks}, indent=1) + "\n")
    return 0


@contextmanager
def prepared(folder: Path) -> Iterator[Site]:
    """Start the servers and make an organization."""
    server = EmbeddedServer(folder / "server")
    with ExitStack() as stack:
        stack.callback(server.reset)
        server.start()
        config = Config(ROOT / "alembic.ini")
        config.attributes["url"] = server.url("owner")
        config.attributes["application_url"] = server.url("app")
        command.upgrade(config, "head")
        engine = create_tenant_engine(server.url("app"), metadata=Base.metadata)
        organization = create_organization("bench", sessions=sessionmaker(engine)).id
        engine.dispose()
        courier = server.url("courier").render_as_string(hide_password=False)
        brokers = {"postgresql": (f"sqla+{courier}", f"db+{courier}")}
        program = shutil.which("redis-server")
        if program:
            url = stack.enter_context(redis(program, folder))
            brokers["redis"] = (url, url)
        yield Site(server, organization, brokers)


@contextmanager
def redis(program: str, folder: Path) -> Iterator[str]:
    """Run a Redis of our own on a socket."""
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(folder)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        _await(socket.exists, process)
        yield f"redis+socket://{socket}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def measure(
    site: Site, broker: str, pool: str, rounds: int, count: int, folder: Path
) -> dict[str, dict[str, list[Cost]]]:
    """Return what each block of each variant took."""
    costs: dict[str, dict[str, list[Cost]]] = {
        variant: {"launched": [], "executed": []} for variant in VARIANTS
    }
    with ExitStack() as stack:
        runners = {
            variant: stack.enter_context(running(site, broker, variant, pool, folder))
            for variant in VARIANTS
        }
        for runner in runners.values():
            runner.run(20)
        order = itertools.cycle([VARIANTS, VARIANTS[::-1]])
        for _ in track(range(rounds), description=broker, transient=True):
            for variant in next(order):
                for what, cost in runners[variant].run(count).items():
                    costs[variant][what].append(cost)
    return costs


@contextmanager
def running(site: Site, broker: str, variant: Variant, pool: str, folder: Path) -> Iterator[Runner]:
    """Run a worker of the variant, and yield what publishes to it."""
    messages, results = site.brokers[broker]
    database = site.server.url("app").render_as_string(hide_password=False)
    place = Place(variant=variant, broker=messages, results=results, database=database)
    log = folder / f"{broker}-{variant}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "--app", "bench.task_app", "worker"),
                *("--pool", pool, "--concurrency", "1", "--loglevel", "INFO"),
                *("--without-gossip", "--without-mingle", "--without-heartbeat"),
            ],
            cwd=ROOT,
            env=os.environ | {VARIABLE: place.text()},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
    app = make_app(place)
    task = app.tasks["nothing"]
    principal = Principal(site.organization)
    try:
        _await(lambda: b" ready." in log.read_bytes(), process)
        with publishing_for(Tenant(site.organization)):
            if variant == "recorded":
                yield Runner(
                    app, lambda: task_launcher(task, *_ARGUMENTS, current_user=principal), folder
                )
            else:
                yield Runner(app, lambda: task.delay(*_ARGUMENTS), folder)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        app.close()


def table(broker: str, pool: str, costs: dict[str, dict[str, list[Cost]]], count: int) -> Table:
    """Return the ratios and what a task costs more, as a table."""
    shown = Table(title=f"broker {broker}, pool {pool}")
    shown.add_column("variant", no_wrap=True)
    shown.add_column("what", no_wrap=True)
    for heading in ("per s", "ratio", "spread", "cpu ms", "more", "ratio"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for what in ("launched", "executed"):
        plain = costs["plain"][what]
        base = 1000 * sum(cost.cpu for cost in plain) / count / len(plain)
        for variant in VARIANTS:
            own = costs[variant][what]
            rate = count / statistics.median(cost.wall for cost in own)
            cpu = 1000 * sum(cost.cpu for cost in own) / count / len(own)
            row = [variant, what, f"{rate:,.0f}"]
            if variant == "plain":
                row += ["", "", f"{cpu:.3f}", "", ""]
            else:
                ratios = [other.wall / cost.wall for cost, other in zip(own, plain, strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
                row += [f"{middle:.2f}", f"{low:.2f} {high:.2f}", f"{cpu:.3f}"]
                row += [f"{cpu - base:.3f}", f"{base / cpu:.2f}"]
            shown.add_row(*row, end_section=variant == VARIANTS[-1])
    return shown


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())

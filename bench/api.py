"""What the tenant layer costs a request, against the same routes without it in the same run.

`tenant` is Assay's API on a database with its policies; `plain` is its twin in bench/api_plain.py,
whose statements name the organization, on a copy without row-level security. Each is a process of
uvicorn, and both are asked by the same clients over connections that stay open. Blocks alternate
(A B B A …); a ratio is that of the two blocks of one round, so that what else the machine does
meets both. The clients and the server use the same cores: the ratio of the API's own CPU time
shows what that hides, and is the steadier one on a busy machine.
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import platform
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from psycopg2 import connect, sql
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sqlalchemy.orm import sessionmaker

from assay.models import Base, TestSet
from assay.services.organizations import add_users, create_organization
from assay.services.tokens import issue_token
from tenantry import DEFAULT_CONFIG, create_tenant_engine, tenant_scope
from tenantry.config import libpq_url
from tenantry.models import tenant_table
from tenantry.testing import Database, Server, find_server

ROOT: Final = Path(__file__).resolve().parent.parent
GOAL: Final = 0.95
VARIANTS: Final = {"plain": "bench.api_plain:create_app", "tenant": "assay.app:create_app"}
ROUTES: Final = ("GET /test_sets", "POST /test_sets")
_ORGANIZATIONS: Final = 20
_SETS: Final = 60
_READY_SECONDS: Final = 60

# uvicorn's own --fd takes a socket of TCP for one of Unix and leaves out TCP_NODELAY: 40 ms each.
_SERVE: Final = """
import socket, sys, uvicorn
config = uvicorn.Config(sys.argv[1], factory=True, access_log=False)
uvicorn.Server(config).run([socket.socket(fileno=int(sys.argv[2]))])
"""


@dataclass(slots=True)
class Block:
    """What came of one block.

    Attributes:
        rate: requests a second.
        cpu: seconds of the API's own process for each request; NaN where there is no /proc.
        seconds: that each request took.
    """

    rate: float
    cpu: float
    seconds: list[float]


@dataclass(frozen=True, slots=True)
class Api:
    """A running API, and the tokens of its users."""

    port: int
    process: int
    tokens: list[str]
    blocks: dict[str, list[Block]] = field(default_factory=dict)

    def message(self, route: str, number: int) -> bytes:
        """Return a request as it is sent."""
        method, _, path = route.partition(" ")
        token = self.tokens[number % len(self.tokens)]
        body = json.dumps({"name": uuid.uuid4().hex}).encode() if method == "POST" else b""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    async def block(self, route: str, requests: int, clients: int) -> Block:
        """Make so many requests by so many clients, each of which waits for its answers."""
        numbers = iter(range(requests))
        expected = b"HTTP/1.1 201" if route.startswith("POST") else b"HTTP/1.1 200"
        seconds: list[float] = []

        async def client() -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            for number in numbers:
                message = self.message(route, number)
                began = time.perf_counter()
                writer.write(message)
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(_length(head))
                seconds.append(time.perf_counter() - began)
                if not head.startswith(expected):
                    raise RuntimeError(f"{route} was answered by {head.decode()!r}")
            writer.close()
            await writer.wait_closed()

        began, used = time.perf_counter(), _cpu(self.process)
        await asyncio.gather(*(client() for _ in range(clients)))
        rate = requests / (time.perf_counter() - began)
        return Block(rate, (_cpu(self.process) - used) / requests, seconds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.api",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few and small blocks: it works")
    parser.add_argument("--rounds", type=int, help="blocks of each variant (default 40, quick 2)")
    parser.add_argument("--requests", type=int, help="of a block (default 200, quick 60)")
    parser.add_argument("--clients", type=int, default=4, help="at once (default 4)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every block's numbers")
    options = parser.parse_args(arguments)
    rounds = options.rounds or (2 if options.quick else 40)
    requests = options.requests or (60 if options.quick else 200)
    console = Console()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, ExitStack() as stack:
        server = stack.enter_context(find_server("embedded"))
        apis = {
            variant: stack.enter_context(running(server, variant, Path(folder)))
            for variant in VARIANTS
        }
        for route in ROUTES:
            measure(apis, route, rounds, requests, options.clients)
        version = server.version
    console.print(table(apis))
    console.print(
        f"Medians of {rounds} rounds of {requests} requests by {options.clients} clients, "
        f"PostgreSQL {version}; ratios are to plain, below 1 where tenant is slower or uses more, "
        f"the spread is the quartiles. The goal is {GOAL}.",
        highlight=False,
    )
    if options.json:
        about = {"python": platform.python_version(), "postgresql": version, "cpus": os.cpu_count()}
        options.json.write_text(json.dumps(about | {"blocks": numbers(apis)}, indent=1) + "\n")
    return 0


def measure(apis: dict[str, Api], route: str, rounds: int, requests: int, clients: int) -> None:
    """Make the blocks of a route in turns, after one of each that does not count."""
    for api in apis.values():
        asyncio.run(api.block(route, max(50, requests // 4), clients))
        api.blocks[route] = []
    order = itertools.cycle([list(apis.values()), list(apis.values())[::-1]])
    for _ in track(range(rounds), description=route, transient=True):
        for api in next(order):
            api.blocks[route].append(asyncio.run(api.block(route, requests, clients)))


@contextmanager
def running(server: Server, variant: str, folder: Path) -> Iterator[Api]:
    """Serve a variant on a database of its own."""
    database = server.create_database()
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = database.owner_url
    config.attributes["application_url"] = database.app_url
    command.upgrade(config, "head")
    tokens = fill(database)
    if variant == "plain":
        tear_down_wall(database)
    url = database.app_url.render_as_string(hide_password=False)
    settings = {
        "DATABASE_URL": url,
        "BROKER_URL": "memory://",
        "CELERY_RESULT_BACKEND": "cache+memory://",
        "TENANTRY_TASK_KEY": secrets.token_hex(32),
        "TENANTRY_MODE": "database",
        "ASSAY_REQUESTS_PER_TOKEN": "100000000/minute",
        "PYTHONPATH": str(ROOT),
    }
    log = folder / f"{variant}.log"
    with closing(socket.socket()) as listener, log.open("wb") as output:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port: int = listener.getsockname()[1]
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", _SERVE, VARIANTS[variant]),
                str(listener.fileno()),
            ],
            cwd=folder,
            env=os.environ | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[listener.fileno()],
        )
    try:
        _await(lambda: b"startup complete" in log.read_bytes(), process, log)
        yield Api(port, process.pid, tokens)
    finally:
        process.terminate()
        process.wait(timeout=20)


def fill(database: Database) -> list[str]:
    """Create organizations with sets of tests, and return a token of each."""
    engine = create_tenant_engine(database.app_url, mode="database", metadata=Base.metadata)
    sessions = sessionmaker(engine)
    tokens = []
    for number in range(_ORGANIZATIONS):
        organization = create_organization(f"bench {number}", sessions=sessions).id
        (user,) = add_users(organization, ["bench@example.org"], sessions=sessions)
        with tenant_scope(organization, sessions=sessions) as session:
            session.add_all(TestSet(name=f"set {place}") for place in range(_SETS))
            tokens.append(issue_token(session, user, "bench").text)
    engine.dispose()
    return tokens


def tear_down_wall(database: Database) -> None:
    """Disable row-level security on each tenant table, as their owner."""
    with (
        closing(connect(libpq_url(database.owner_url))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(sql.SQL("set role {}").format(sql.Identifier(DEFAULT_CONFIG.owner_role)))
        for table in Base.metadata.sorted_tables:
            if tenant_table(table) is not None:
                name = sql.Identifier(table.name)
                cursor.execute(sql.SQL("alter table {0} disable row level security").format(name))
                cursor.execute(sql.SQL("alter table {0} no force row level security").format(name))
        connection.commit()


def table(apis: dict[str, Api]) -> Table:
    """Return rates, times and ratios as a table."""
    shown = Table(title="GET and POST /test_sets", box=box.SIMPLE)
    for heading in ("", "per s", "p50 ms", "p99 ms", "ratio", "spread", "CPU ms", "ratio"):
        shown.add_column(heading, justify="right" if heading else "left", no_wrap=True)
    for route in ROUTES:
        for variant, api in apis.items():
            blocks = api.blocks[route]
            seconds = [each for block in blocks for each in block.seconds]
            row = [
                f"{route.partition(' ')[0]} {variant}",
                f"{statistics.median(b.rate for b in blocks):,.0f}",
            ]
            cuts = statistics.quantiles(seconds, n=100)
            row += [f"{1000 * cuts[49]:.2f}", f"{1000 * cuts[98]:.2f}", "", ""]
            row += [f"{1000 * statistics.median(b.cpu for b in blocks):.2f}", ""]
            if variant != "plain":
                pairs = list(zip(blocks, apis["plain"].blocks[route], strict=True))
                low, middle, high = statistics.quantiles([m.rate / p.rate for m, p in pairs], n=4)
                cpu = statistics.median(p.cpu / m.cpu for m, p in pairs)
                row[4:6] = [f"{middle:.3f}", f"{low:.2f}-{high:.2f}"]
                row[7] = f"{cpu:.3f}"
            shown.add_row(*row, end_section=variant == "tenant")
    return shown


def numbers(apis: dict[str, Api]) -> dict[str, Any]:
    """Return each block's rate, and milliseconds: CPU, median and 99th percentile."""
    return {
        variant: {
            route: [
                {
                    "rate": block.rate,
                    "cpu": 1000 * block.cpu,
                    "p50": 1000 * statistics.median(block.seconds),
                    "p99": 1000 * statistics.quantiles(block.seconds, n=100)[98],
                }
                for block in blocks
            ]
            for route, blocks in api.blocks.items()
        }
        for variant, api in apis.items()
    }


def _cpu(process: int) -> float:
    """Return the seconds of CPU that a process has used, in user mode and in the kernel."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return math.nan
    used = stat.read_text().rpartition(")")[2].split()[11:13]
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    raise RuntimeError(f"the answer has no length: {head.decode()!r}")


def _await(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{process.args!r} did not start:\n{log.read_text()}")
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())

"""What a tenant costs a unit of work, against a plain Session with an explicit filter and no wall.

A unit of work is a Session, one object by its key, and a commit. Each variant of the layer is a way
of sending the context with a scope of the setting. All variants take turns, unit by unit, so that
what else the machine does meets all of them; a ratio is that of the medians of one batch. Both
databases have the same rows; the plain one has row-level security switched off. The network is a
proxy that holds everything back for a millisecond in each direction.
"""

import statistics
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg2
from alembic import command
from alembic.config import Config
from psycopg2 import sql
from rich.progress import track
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from assay.models import Base, TestSet
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
from bench.wire import Wire, remote
from tenantry import DEFAULT_CONFIG, create_tenant_engine, set_tenant
from tenantry.config import ContextWay, Scope, libpq_url
from tenantry.models import tenant_table
from tenantry.testing.servers import Database, find_server

WAYS: Final[tuple[ContextWay, ...]] = ("separate", "prefix", "begin")
SCOPES: Final[tuple[Scope, ...]] = ("transaction", "session")
DELAY: Final = 0.001
HEADINGS: Final = ("context, scope", "round trips", "µs", "ratio (quartiles)", "goal")
PLACES: Final = ("local", "1 ms")
# Ratios to aim at, for settings that end with the transaction: local, and with the delay.
RATIOS: Final = {("local", "prefix"): 1.05, ("1 ms", "prefix"): 1.0, ("1 ms", "begin"): 0.75}
# Round trips that a tenant may add. With scope `session` one comes after the answer.
TRIPS: Final = {"prefix, transaction": 0, "begin, transaction": -1, "prefix, session": 1}


@dataclass(frozen=True, slots=True)
class Row:
    """One object: whose it is, and its id."""

    organization_id: uuid.UUID
    id: uuid.UUID


Unit = Callable[[Row], object]


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    options = parser("bench.context", __doc__)
    options.add_argument("--batches", type=int, help="each with a ratio (default 20, quick 5)")
    options.add_argument(
        "--units", type=int, help="units of work in a local batch (default 140, quick 70)"
    )
    options.add_argument("--server", choices=("embedded", "container", "url"), default="embedded")
    chosen = options.parse_args(arguments)
    batches = chosen.batches or (5 if chosen.quick else 20)
    size = chosen.units or (70 if chosen.quick else 140)
    with ExitStack() as stack:
        server = stack.enter_context(find_server(chosen.server))
        walled, plain = (make_database(server.create_database()) for _ in range(2))
        stack.callback(walled.drop)
        stack.callback(plain.drop)
        rows = fill(walled, plain)
        tear_down_wall(plain)
        figures = about(server.version)
        figures["round_trips"] = count(walled.app_url, plain.app_url, rows[0])
        for place, units in (("local", size), ("1 ms", max(size // 10, 7))):
            with ExitStack() as wires:
                first, second = (
                    database.app_url
                    if place == "local"
                    else wires.enter_context(remote(database.app_url, DELAY))
                    for database in (walled, plain)
                )
                measured = measure(first, second, rows, batches=batches, units=units, title=place)
            figures[place] = summary(measured)
            console().print(table(place, HEADINGS, shown(place, figures)))
    publish(figures, chosen, goals=goals(figures), tables=tables(figures))
    return 0


def make_database(database: Database) -> Database:
    """Migrate a database."""
    config = Config(ROOT / "alembic.ini")
    config.attributes["url"] = database.owner_url
    config.attributes["application_url"] = database.app_url
    command.upgrade(config, "head")
    return database


def fill(*databases: Database) -> list[Row]:
    """File the same hundred organizations, with ten sets each, and return the sets."""
    tenants = [uuid.uuid4() for _ in range(100)]
    rows = [Row(tenant, uuid.uuid4()) for tenant in tenants for _ in range(10)]
    for database in databases:
        with closing(psycopg2.connect(libpq_url(database.app_url))) as connection:
            cursor = connection.cursor()
            for tenant in tenants:
                setting = (DEFAULT_CONFIG.organization_setting, str(tenant))
                cursor.execute("select set_config(%s, %s, true)", setting)
                cursor.execute(
                    "insert into organizations (id, name) values (%s, %s)", [str(tenant)] * 2
                )
                for row in rows:
                    if row.organization_id == tenant:
                        cursor.execute(
                            "insert into test_sets (id, name) values (%s, %s)", [str(row.id)] * 2
                        )
            connection.commit()
        with closing(psycopg2.connect(libpq_url(database.owner_url))) as connection:
            connection.autocommit = True
            connection.cursor().execute("vacuum analyze test_sets")
    return rows


def tear_down_wall(database: Database) -> None:
    """Disable row security on each tenant table."""
    with closing(psycopg2.connect(libpq_url(database.owner_url))) as connection:
        cursor = connection.cursor()
        cursor.execute(sql.SQL("set role {}").format(sql.Identifier(DEFAULT_CONFIG.owner_role)))
        for table in Base.metadata.sorted_tables:
            if tenant_table(table) is not None:
                statement = sql.SQL("alter table {} disable row level security")
                cursor.execute(statement.format(sql.Identifier(table.name)))
        connection.commit()


@contextmanager
def variants(walled: URL, plain: URL) -> Iterator[dict[str, Unit]]:
    """Yield each variant's unit of work, on an engine of its own."""
    with ExitStack() as stack:

        def opened(engine: Engine) -> Engine:
            stack.callback(engine.dispose)
            return engine

        units: dict[str, Unit] = {"plain": _plain(opened(create_engine(plain, pool_size=1)))}
        for scope in SCOPES:
            for way in WAYS:
                engine = create_tenant_engine(
                    walled, mode="database", scope=scope, context=way, pool_size=1
                )
                units[f"{way}, {scope}"] = _tenants(opened(engine))
        yield units


def _plain(engine: Engine) -> Unit:
    def work(row: Row) -> object:
        with Session(engine) as session:
            found = session.scalars(
                select(TestSet).where(
                    TestSet.organization_id == row.organization_id, TestSet.id == row.id
                )
            ).one()
            session.commit()
            return found

    return work


def _tenants(engine: Engine) -> Unit:
    def work(row: Row) -> object:
        with Session(engine) as session:
            set_tenant(session, row.organization_id)
            found = session.scalars(select(TestSet).where(TestSet.id == row.id)).one()
            session.commit()
            return found

    return work


def count(walled: URL, plain: URL, row: Row) -> dict[str, int]:
    """Return the round trips of one unit of work of each variant."""
    counts = {}
    with (
        Wire(walled) as first,
        Wire(plain) as second,
        variants(first.url, second.url) as units,
    ):
        for name, work in units.items():
            work(row)
            first.clear()
            second.clear()
            work(row)
            counts[name] = first.trips + second.trips
    return counts


def measure(
    walled: URL, plain: URL, rows: list[Row], *, batches: int, units: int, title: str
) -> list[dict[str, list[float]]]:
    """Return the seconds of each unit of work of each variant, in batches."""
    with variants(walled, plain) as works:
        for work in works.values():
            for row in rows[:units]:
                work(row)
        measured = []
        for _ in track(range(batches), description=title, transient=True):
            times: dict[str, list[float]] = {name: [] for name in works}
            for number in range(units):
                row = rows[number % len(rows)]
                for name in turns(list(works), number):
                    started = time.perf_counter()
                    works[name](row)
                    times[name].append(time.perf_counter() - started)
            measured.append(times)
    return measured


def summary(measured: list[dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    """Return each variant's median time, and the quartiles of its batches' ratios to the plain."""
    medians = {name: [statistics.median(times[name]) for times in measured] for name in measured[0]}
    return {
        name: {"us": 1e6 * statistics.median(own)}
        | Spread.of_ratios(own, medians["plain"]).figures()
        for name, own in medians.items()
    }


def shown(place: str, figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the ratios of one place as the rows of a table."""
    rows = []
    for name, figure in figures[place].items():
        way, _, scope = name.partition(", ")
        bound = RATIOS.get((place, way)) if scope == "transaction" else None
        trips = str(figures["round_trips"][name])
        ratio = "1.00" if name == "plain" else str(Spread.of_figures(figure))
        goal = "" if bound is None else f"≤ {bound:.2f}"
        rows.append([name, trips, f"{figure['us']:,.0f}", ratio, goal])
    return rows


def goals(figures: Mapping[str, Any]) -> list[Goal]:
    """Return what was to be reached."""
    plain = figures["round_trips"]["plain"]
    return [
        *(
            Goal(f"round trips added, {name}", bound, figures["round_trips"][name] - plain)
            for name, bound in TRIPS.items()
        ),
        *(
            Goal(
                f"unit of work, {place}, {way}",
                bound,
                Spread.of_figures(figures[place][f"{way}, transaction"]),
            )
            for (place, way), bound in RATIOS.items()
        ),
    ]


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the documents."""
    rows = [
        [
            name,
            str(trips),
            *(
                "1.00" if name == "plain" else str(Spread.of_figures(figures[place][name]))
                for place in PLACES
            ),
        ]
        for name, trips in figures["round_trips"].items()
    ]
    headings = ("context, scope", "round trips", *PLACES)
    return {"context": f"{markdown(headings, rows)}\n\n{measured_with(figures)}"}


if __name__ == "__main__":
    sys.exit(main())

"""What a search costs inside a tenant that holds half of the rows, against no row security at all.

Each predicate is asked in up to five ways, round by round, of one table in one server:
`explicit` by a role that row security does not bind, with a WHERE on the tenant; `policy` by the
application, with the same predicate; `search` by the application, through the function that
op.create_tenant_search made; `kept` through one that keeps its plan, where it can; `marked` as
`policy`, with the operators marked by sql/leakproof.sql.
A ratio is that of the two times of one round. Times are the client's, rows fetched.
"""

import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg2
from alembic.migration import MigrationContext
from alembic.operations import Operations
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from rich.console import Console
from rich.progress import track
from sqlalchemy import create_engine
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool

import tenantry.alembic  # noqa: F401 - registers the operations
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
)
from tenantry.config import libpq_url
from tenantry.embedded.binaries import find_binaries
from tenantry.testing import Database
from tenantry.testing.servers import find_server

GOAL: Final = 1.1
# The server chooses between its plans after five.
_UNTIL_KEPT: Final = 8
LARGE: Final = uuid.UUID(int=0xA)
HEADINGS: Final = (
    *("predicate", "rows", "explicit, ms", "policy", "search", "added, µs", "plan kept"),
    "LEAKPROOF",
)

_TABLE: Final = """
create table items (
  organization_id uuid not null, id uuid not null default gen_random_uuid(),
  label text not null, mail text not null, nick public.citext not null, state state not null,
  price numeric not null, payload jsonb not null, tags text[] not null, words tsvector not null,
  primary key (organization_id, id))
"""
# Every second row is the large tenant's; the others are spread over 999.
_ROWS: Final = """
insert into items
select case when n % 2 = 0 then '{large}'::uuid else pg_catalog.lpad(pg_catalog.to_hex(
    4096 + n % 999), 32, '0')::uuid end, gen_random_uuid(),
  'label ' || md5(n::text), 'User' || n || '@Example.org', 'Nick' || n,
  (case when n % {rare} in (0, 1) then 'rare' else 'usual' end)::state, n / 100.0,
  jsonb_build_object('k', n % {groups}, 'name', 'v' || n % {groups}),
  array['t' || n % {groups}, 'all'],
  to_tsvector('simple', 'all w' || n % {groups})
from generate_series(1, {count}) as n
"""
_INDEXES: Final = (
    "gin (organization_id, label gin_trgm_ops)",
    "btree (organization_id, label text_pattern_ops)",
    "btree (organization_id, lower(mail))",
    "btree (organization_id, nick)",
    "btree (organization_id, state)",
    "btree (organization_id, price)",
    "gin (organization_id, payload jsonb_path_ops)",
    "btree (organization_id, (payload ->> 'name'))",
    "gin (organization_id, tags)",
    "gin (organization_id, words)",
)


@dataclass(frozen=True)
class Predicate:
    """One way of asking, as a condition and, where it needs one, as a search."""

    title: str
    condition: str
    call: str | None
    search: tuple[str, str, str, str | None] | None  # column, match, type, detail
    within_policy: str | None = None

    @property
    def keeps_plans(self) -> bool:
        """Whether the search can: it is served by an index of B-tree's kind."""
        return self.search is not None and self.search[1] not in {
            "contains_text",
            "contains",
            "words",
        }


PREDICATES: Final = (
    Predicate(
        "ilike '%…%', trigram",
        "label ilike '%{digits}%'",
        "s_label('{digits}')",
        ("label", "contains_text", "text", None),
    ),
    Predicate(
        "lower(mail) =",
        "lower(mail) = 'user500@example.org'",
        "s_mail('USER500@example.org')",
        ("mail", "equals_ignoring_case", "text", None),
    ),
    Predicate(
        "citext =",
        "nick = 'NICK500'",
        "s_nick('NICK500')",
        ("nick", "equals", "public.citext", None),
    ),
    Predicate("enum =", "state = 'rare'", "s_state('rare')", ("state", "equals", "state", None)),
    Predicate(
        "numeric range",
        "price between 500 and 500.5",
        "s_price(500, 500.5)",
        ("price", "between", "numeric", None),
    ),
    Predicate(
        "jsonb @>",
        """payload @> '{{"k": 500}}'""",
        """s_payload('{{"k": 500}}')""",
        ("payload", "contains", "jsonb", None),
    ),
    Predicate(
        "jsonb ->> =",
        "payload ->> 'name' = 'v500'",
        "s_name('v500')",
        ("payload", "key_equals", "jsonb", "name"),
    ),
    Predicate(
        "array @>",
        "tags @> array['t500']",
        "s_tags(array['t500'])",
        ("tags", "contains", "text[]", None),
    ),
    Predicate(
        "full text @@",
        "words @@ websearch_to_tsquery('simple', 'w500')",
        "s_words('w500')",
        ("words", "words", "tsvector", "simple"),
    ),
    # Leakproof as it is: starts with.
    Predicate("like 'abc%' as ^@", "label like 'label abcd%'", None, None, "label ^@ 'label abcd'"),
)


def fill(database: Database, count: int) -> None:
    """Create the table, its wall, its searches and its rows."""
    with session(database.superuser_url) as cursor:
        for extension in ("citext", "pg_trgm", "btree_gin"):
            cursor.execute(f"create extension {extension}")
    engine = create_engine(database.owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        op: Any = Operations(MigrationContext.configure(connection))
        op.execute("create table alembic_version (version_num varchar(32) primary key)")
        op.create_tenancy_roles([str(database.app_url.username)])
        op.assume_owner()
        op.execute("create type state as enum ('usual', 'rare')")
        op.execute(_TABLE)
        op.isolate_table("items")
        for predicate in PREDICATES:
            if predicate.search is not None and predicate.call is not None:
                column, match, kind, detail = predicate.search
                name = predicate.call.partition("(")[0]
                declared = {"match": match, "type": kind, "detail": detail}
                op.create_tenant_search(name, "items", column, **declared)
                if predicate.keeps_plans:
                    op.create_tenant_search(
                        f"kept_{name}", "items", column, **declared, keep_plan=True
                    )
    with session(database.superuser_url) as cursor:
        groups = max(1000, count // 50)
        cursor.execute(_ROWS.format(large=LARGE, count=count, groups=groups, rare=count // 25))
        for definition in _INDEXES:
            cursor.execute(f"create index on items using {definition}")
        cursor.execute("vacuum analyze items")


@contextmanager
def session(url: URL) -> Iterator[Cursor]:
    """Yield a cursor that commits each statement, for the large tenant."""
    with closing(psycopg2.connect(libpq_url(url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("select set_config('app.current_organization', %s, false)", [str(LARGE)])
            # Workers would hide what the machine has to do.
            cursor.execute("set max_parallel_workers_per_gather = 0")
            yield cursor


def timed(cursor: Cursor, query: str) -> tuple[float, int]:
    """Return how long the query took, and how many rows it found."""
    start = time.perf_counter()
    cursor.execute(query)
    rows = cursor.fetchall()
    return time.perf_counter() - start, len(rows)


def mark(database: Database, *, on: bool) -> None:
    """Run sql/leakproof.sql as a superuser."""
    subprocess.run(
        [
            *(find_binaries().psql, "-X", "-q", "-d", libpq_url(database.superuser_url)),
            *("-v", f"mark={'on' if on else 'off'}", "-v", "patterns=on"),
            *("-f", ROOT / "sql" / "leakproof.sql"),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def measure(database: Database, rounds: int, slow_rounds: int) -> Iterator[dict[str, Any]]:
    """Yield the times of each predicate."""
    tenant = f"organization_id = '{LARGE}'"
    with (
        session(database.superuser_url) as free,
        session(database.app_url) as bound,
        session(database.app_url) as searching,
    ):
        for predicate in track(PREDICATES, console=Console(stderr=True)):
            condition = predicate.condition.format(digits="abcde")
            ways = {"explicit": (free, f"select * from items where {tenant} and {condition}")}
            if predicate.call is not None:
                call = predicate.call.format(digits="abcde")
                ways["search"] = (searching, f"select * from {call}")
                if predicate.keeps_plans:
                    ways["kept"] = (searching, f"select * from kept_{call}")
            policy = predicate.within_policy or condition
            plain = (bound, f"select * from items where {policy}")
            times: dict[str, list[float]] = {way: [] for way in (*ways, "policy", "marked")}
            found = {timed(cursor, query)[1] for cursor, query in (*ways.values(), plain)}
            if len(found) != 1:
                raise SystemExit(f"{predicate.title}: the ways find {found} rows")
            if "kept" in ways:
                for _ in range(_UNTIL_KEPT):
                    timed(*ways["kept"])
            for number in range(rounds):
                turn = dict(reversed(ways.items())) if number % 2 else ways
                if number < slow_rounds:
                    turn = turn | {"policy": plain}
                for way, (cursor, query) in turn.items():
                    times[way].append(timed(cursor, query)[0])
            mark(database, on=True)
            timed(*plain)
            beside = []
            for _ in range(rounds):
                beside.append(timed(*ways["explicit"])[0])
                times["marked"].append(timed(*plain)[0])
            mark(database, on=False)
            yield {
                "predicate": predicate.title,
                "rows": found.pop(),
                "explicit_ms": statistics.median(times["explicit"]) * 1000,
                "added_us": added(times["search"], times["explicit"])
                if "search" in times
                else None,
                "policy": Spread.of_ratios(
                    times["policy"], times["explicit"][: len(times["policy"])]
                ).figures(),
                "search": Spread.of_ratios(times["search"], times["explicit"]).figures()
                if predicate.search is not None
                else None,
                "kept": Spread.of_ratios(times["kept"], times["explicit"]).figures()
                if "kept" in times
                else None,
                "marked": Spread.of_ratios(times["marked"], beside).figures(),
            }


def added(times: list[float], explicit: list[float]) -> float:
    """Return how much longer a search takes, in microseconds."""
    return (statistics.median(times) - statistics.median(explicit)) * 1e6


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """Return the ratios as the rows of a table."""
    return [
        [
            each["predicate"],
            str(each["rows"]),
            f"{each['explicit_ms']:.2f}",
            str(Spread.of_figures(each["policy"])),
            "-" if each["search"] is None else str(Spread.of_figures(each["search"])),
            "-" if each["added_us"] is None else f"{each['added_us']:,.0f}",
            "-" if each["kept"] is None else str(Spread.of_figures(each["kept"])),
            str(Spread.of_figures(each["marked"])),
        ]
        for each in figures["results"]
    ]


def goals(figures: Mapping[str, Any]) -> list[Goal]:
    """Return what was to be reached: by the search, or by the query where it needs none."""
    return [
        Goal(f"search, {each['predicate']}{said}", GOAL, Spread.of_figures(each[way]))
        for each in figures["results"]
        for way, said in (
            ("policy" if each["search"] is None else "search", ""),
            ("kept", ", plan kept"),
        )
        if each[way] is not None
    ]


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the documents."""
    return {"search": f"{markdown(HEADINGS, rows(figures))}\n\n{measured_with(figures)}"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    options = parser("bench.search", __doc__)
    options.add_argument(
        "--rows", type=int, help="half are the large tenant's (default 1,000,000, quick 100,000)"
    )
    options.add_argument("--rounds", type=int, help="default 100, quick 20")
    chosen = options.parse_args(arguments)
    count = chosen.rows or (100_000 if chosen.quick else 1_000_000)
    rounds = chosen.rounds or (20 if chosen.quick else 100)
    with find_server("embedded") as server:
        database = server.create_database()
        fill(database, count)
        results = list(measure(database, rounds, slow_rounds=min(5, rounds)))
        figures = about(server.version) | {"rows": count, "rounds": rounds, "results": results}
    console().print(table("1.00 is the explicit filter, no row security", HEADINGS, rows(figures)))
    publish(figures, chosen, goals=goals(figures), tables=tables(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

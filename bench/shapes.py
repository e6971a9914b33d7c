"""What row-level security costs each shape of a query, against explicit filters without it.

`explicit` names the tenant in a WHERE and asks tables without row security; `policy` asks tables
that op.isolate_table walled off, with the tenant set; `both` asks those and names it too, as the
session layer's mode `both` does. One connection of the application's asks in all ways by turns,
slice by slice, so that a ratio is that of one round. A slice is up to ten statements in a
transaction that is rolled back; BEGIN, the context and ROLLBACK are not counted, but by the other
benches. `time` is what a client waits that has nothing but libpq, which is what the goals are of: a
driver's own work would make them easier. `server` is what the server's process spends, as Linux
tells it, where nothing that is waited for hides what isolation costs.

The parts: shapes, for tenants of one size and beside one that has half of the rows; sizes of the
table at one size of the tenants; plans that are kept from one tenant for another; tables that are
partitioned by hash; other expressions and other indexes; the plans themselves.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, product
from typing import Any, Final

from rich.progress import Progress

from bench.figures import (
    Goal,
    Lines,
    Spread,
    about,
    console,
    markdown,
    measured_with,
    parser,
    pivot,
    publish,
)
from bench.figures import table as shown
from bench.grounds import (
    ABSENT,
    EXPRESSIONS,
    LARGEST,
    SMALL,
    Ground,
    Tenant,
    change_rule,
    change_statistics,
    choose_grounds,
    lay,
    sample,
    superuser,
    take_index_apart,
    vacuum,
)
from bench.statements import (
    PAGE,
    PROTOCOLS,
    REPORT,
    SHAPES,
    Asker,
    Backend,
    Protocol,
    Shape,
    backend,
    compared,
    cost,
    kept_plan,
    plan,
    race,
    ratios,
)
from tenantry.testing import Database
from tenantry.testing.servers import find_server

BOUNDS: Final[dict[str, float]] = {"simple": 1.05, "prepared": 1.02}
SKEWED: Final = 1.1
FLAT: Final = 1.1
STABLE: Final = 2.0
PARTITIONED: Final = 1.15
_WAYS: Final = {"policy": "policy alone", "both": "mode both"}
_FLAT: Final = {"count", PAGE.name}
_FEW: Final = {"point", "count", "page of 50", "insert 1"}
_EVEN: Final = (1, 2, 3)
_MODES: Final = ("auto", "force_generic_plan")


class Bench:
    """The parts, each on grounds that are laid already."""

    def __init__(
        self,
        database: Database,
        backend: Backend,
        progress: Progress,
        rounds: int,
        *,
        few: bool,
    ) -> None:
        """Take the database, and a connection to it; of few shapes measure all but once."""
        self.database, self.backend = database, backend
        self.progress, self.rounds = progress, rounds
        self._some = tuple(shape for shape in SHAPES if not few or shape.name in _FEW)

    def shapes(self, even: Ground, skewed: Ground) -> Iterator[dict[str, Any]]:
        """Yield each shape's ratio for tenants of one size, for the largest and those beside it."""
        for title, ground, names in (
            ("even", even, _EVEN),
            ("largest", skewed, (LARGEST,)),
            ("beside it", skewed, _EVEN),
        ):
            askers = self._ways(ground, *names)
            for shape, protocol in self._each(f"shapes, {title}", SHAPES, ground):
                times = race(self.backend, shape, protocol, askers, self.rounds)
                yield {"tenant": title} | compared(shape, protocol, times)

    def sizes(self, grounds: Sequence[Ground]) -> Iterator[dict[str, Any]]:
        """Yield each shape's ratio in tables of each size, and to the smallest of them."""
        askers = {
            f"{ground.rows} {way}": asker
            for ground in grounds
            for way, asker in self._ways(ground, *_EVEN).items()
        }
        for shape, protocol in self._each("sizes", self._some, *grounds):
            times = race(self.backend, shape, protocol, askers, self.rounds)
            smallest = times[f"{grounds[0].rows} policy"]
            for ground in grounds:
                own = {way: times[f"{ground.rows} {way}"] for way in ("explicit", "policy")}
                flat = ratios(own["policy"], smallest)
                yield {"rows": ground.rows, "flat": flat} | compared(shape, protocol, own)

    def partitions(self, grounds: Sequence[Ground]) -> Iterator[dict[str, Any]]:
        """Yield each shape's ratio in partitioned tables, by the policy alone and with a filter."""
        for ground in grounds:
            askers = self._ways(ground, *_EVEN)
            for shape, protocol in self._each(
                f"{ground.partitions} partitions", self._some, ground
            ):
                times = race(self.backend, shape, protocol, askers, self.rounds)
                for way in ("policy", "both"):
                    named = {"partitions": ground.partitions, "way": way}
                    yield named | compared(shape, protocol, times, way)

    def kept_plans(self, ground: Ground, *, target: int | None) -> Iterator[dict[str, Any]]:
        """Yield how long a plan that was kept from one tenant takes for each, against the best.

        Pairs with the same plan are measured once, as one. The target is the statistics' of the
        tenant column; None for what isolate_table has made it.
        """
        self.backend.forget()
        if target is not None:
            with superuser(self.database) as cursor:
                change_statistics(cursor, ground, target)
        names: dict[str, int | str] = {LARGEST: LARGEST, "average": 1, SMALL: SMALL, ABSENT: ABSENT}
        tenants = {title: self._tenants(ground, name)[0] for title, name in names.items()}
        kept = [each for each in (*self._some, REPORT) if not each.name.startswith("insert")]
        for shape in self._counted(f"kept plans, {ground.name}", kept, ground):
            for title, tenant in tenants.items():
                plans: dict[str, tuple[list[str], Asker]] = {}
                for planned, mode in product(tenants, _MODES):
                    asker = Asker(ground.name, "policy", (tenant,), tenants[planned], mode)
                    found = kept_plan(self.backend, shape, asker)
                    plans.setdefault(found, ([], asker))[0].append(f"{planned}, {mode}")
                askers = {"; ".join(pairs): asker for pairs, asker in plans.values()}
                rounds = max(self.rounds // 4, 5)
                times = race(self.backend, shape, "prepared", askers, rounds)
                best = min(times.values(), key=cost)
                for found, (pairs, _) in plans.items():
                    taken = times["; ".join(pairs)]
                    yield {
                        "ground": ground.name,
                        "default_statistics": target is not None,
                        "shape": shape.name,
                        "tenant": title,
                        "planned_for": pairs,
                        "plan": found,
                    } | ratios(taken, best)

    def expressions(self, grounds: Sequence[Ground]) -> Iterator[dict[str, Any]]:
        """Yield each shape's ratio with the policies as they are, and as they might be."""
        base = self._ways(grounds[0], *_EVEN)["explicit"]
        asking = {"in a WHERE, no row security": Asker(base.schema, "expression", base.tenants)}
        for (title, rule), ground in zip(EXPRESSIONS.items(), grounds, strict=True):
            asking[title] = self._ways(ground, *_EVEN)["policy"]
            with superuser(self.database) as cursor:
                change_rule(cursor, ground, rule)
        # It takes so long that the others would be asked once a round.
        slow = {"column as text": asking.pop("column as text")}
        for group, rounds in ((asking, self.rounds), (slow, max(self.rounds // 10, 1))):
            for shape, protocol in self._each("expressions", self._some, *grounds):
                askers = group | {"explicit": base}
                times = race(self.backend, shape, protocol, askers, rounds)
                for title in group:
                    yield {"expression": title} | compared(shape, protocol, times, title)

    def indexes(self, skewed: Ground) -> Iterator[dict[str, Any]]:
        """Yield what a page costs without an index that has both the tenant and the order."""
        for index, title in product(("tenant and order", "apart"), ("as it is", "sub-select")):
            with superuser(self.database) as cursor:
                change_rule(cursor, skewed, EXPRESSIONS[title])
                if index == "apart":
                    take_index_apart(cursor, skewed)
            for name in (LARGEST, 1):
                askers = self._ways(skewed, name)
                rounds = max(self.rounds // 10, 5)
                times = race(self.backend, PAGE, "simple", askers, rounds)
                yield {
                    "indexes": index,
                    "expression": title,
                    "tenant": LARGEST if name == LARGEST else "average",
                    "plan": plan(self.backend, PAGE, askers["policy"]),
                } | compared(PAGE, "simple", times)

    def plans(self, grounds: Sequence[Ground]) -> Iterator[dict[str, str]]:
        """Yield the plans of the reads, in each way of asking."""
        for ground in grounds:
            for way, asker in self._ways(ground, 1).items():
                for shape in SHAPES:
                    if not shape.writes:
                        named = {"ground": ground.name, "shape": shape.name, "way": way}
                        yield named | {"plan": plan(self.backend, shape, asker)}

    def _tenants(self, ground: Ground, *names: int | str) -> tuple[Tenant, ...]:
        with superuser(self.database) as cursor:
            return tuple(sample(cursor, ground, name) for name in names)

    def _ways(self, ground: Ground, *names: int | str) -> dict[str, Asker]:
        tenants = self._tenants(ground, *names)
        ways = {
            "explicit": Asker(ground.plain, "explicit", tenants),
            "policy": Asker(ground.name, "policy", tenants),
        }
        if ground.partitions:
            ways["both"] = Asker(ground.name, "both", tenants)
        return ways

    def _each(
        self, title: str, shapes: Sequence[Shape], *grounds: Ground
    ) -> Iterator[tuple[Shape, Protocol]]:
        for shape in self._counted(title, shapes, *grounds):
            for protocol in PROTOCOLS:
                yield shape, protocol

    def _counted(self, title: str, shapes: Sequence[Shape], *grounds: Ground) -> Iterator[Shape]:
        """Yield the shapes, with progress, and clean the grounds after those that write."""
        task = self.progress.add_task(title, total=len(shapes))
        for shape in shapes:
            yield shape
            if shape.writes:
                with superuser(self.database) as cursor:
                    for ground in grounds:
                        vacuum(cursor, ground)
            self.progress.advance(task)
        self.progress.remove_task(task)


def goals(figures: Mapping[str, Any]) -> list[Goal]:
    """Return what was to be reached: of what many goals are alike, the worst."""
    found = [
        Goal(f"{each['shape']}, {each['protocol']}", BOUNDS[each["protocol"]], _waited(each))
        for each in figures["shapes"]
        if each["tenant"] == "even"
    ]
    skewed = [each for each in figures["shapes"] if each["tenant"] != "even"]
    found.append(_worst("any shape, one tenant with half of the rows", SKEWED, skewed))
    for rows in dict.fromkeys(each["rows"] for each in figures["sizes"]):
        sized = [each for each in figures["sizes"] if each["rows"] == rows]
        found.append(_worst(f"any shape, {rows:,} rows", SKEWED, sized))
    most = max(each["rows"] for each in figures["sizes"])
    found += [
        Goal(
            f"{each['shape']}, {each['protocol']}, {most:,} rows against the fewest",
            FLAT,
            _waited(each["flat"]),
        )
        for each in figures["sizes"]
        if each["rows"] == most and each["shape"] in _FLAT
    ]
    kept = [each for each in figures["kept_plans"] if not each["default_statistics"]]
    for report, title in ((False, "any shape"), (True, "a report")):
        chosen = [each for each in kept if (each["shape"] == REPORT.name) is report]
        found.append(_worst(f"{title}, plan kept from another tenant", STABLE, chosen))
    for count in dict.fromkeys(each["partitions"] for each in figures["partitions"]):
        parted = [
            each
            for each in figures["partitions"]
            if each["partitions"] == count and each["way"] == "both"
        ]
        found.append(_worst(f"any shape, {count} partitions, mode both", PARTITIONED, parted))
    return found


def tables(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of the documents, and the plans."""
    made = {name: markdown(*lines) for name, lines in _pivots(figures).items()}
    made["shapes"] += f"\n\n{measured_with(figures)}"
    plans = {
        f"plan, {each['way']}{', partitions' if parted else ''}": each["plan"]
        for each in figures["plans"]
        for parted in (each["ground"].startswith("partitions"),)
        if each["shape"] == PAGE.name and not (parted and each["way"] == "explicit")
    }
    plans["plan, kept"] = next(
        each["plan"]
        for each in figures["kept_plans"]
        if each["default_statistics"] and (each["shape"], each["tenant"]) == (PAGE.name, LARGEST)
        if any(pair.startswith(ABSENT) for pair in each["planned_for"])
    )
    made |= {name: f"```text\n{text}\n```" for name, text in plans.items()}
    return made


def _pivots(figures: Mapping[str, Any]) -> dict[str, Lines]:
    flat = [each for each in figures["sizes"] if each["shape"] in _FLAT]
    return {
        "shapes": pivot(
            [
                {"row": _asked(each), "column": column, "cell": cell}
                for each in figures["shapes"]
                if each["tenant"] == "even"
                for column, cell in (
                    ("explicit, µs", f"{each['explicit_us']:,.1f}"),
                    ("added, µs", f"{each['added_us']:,.1f}"),
                    ("server", str(_spread(each))),
                    ("time", str(Spread.of_figures(each["time"]))),
                )
            ]
        ),
        "skewed": pivot(
            [_cell(each, each["tenant"]) for each in figures["shapes"] if each["tenant"] != "even"]
        ),
        "sizes": pivot(
            [_cell(each, f"{each['rows']:,} rows") for each in figures["sizes"]]
            + [
                _cell(each, f"{each['rows']:,} rows") | {"row": row, "cell": cell}
                for each in flat
                for row, cell in ((f"{_asked(each)}, to the fewest", str(_spread(each["flat"]))),)
            ]
        ),
        "kept plans": _kept(figures["kept_plans"]),
        "partitions": pivot(
            [
                _cell(each, f"{each['partitions']}, {_WAYS[each['way']]}")
                for each in figures["partitions"]
            ]
        ),
        "expressions": pivot([_cell(each, each["expression"]) for each in figures["expressions"]]),
        "indexes": pivot(
            [
                _cell(each, f"{each['tenant']} tenant")
                | {"row": f"{each['indexes']}; {each['expression']}"}
                for each in figures["indexes"]
            ]
        ),
    }


def _cell(each: Mapping[str, Any], column: str) -> dict[str, str]:
    return {"row": _asked(each), "column": column, "cell": str(_spread(each))}


def _kept(figures: Sequence[Mapping[str, Any]]) -> Lines:
    """Return the worst of the pairs of each shape."""
    worst: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in figures:
        statistics_ = "default statistics" if each["default_statistics"] else "as isolate_table"
        key = (each["shape"], f"{each['ground']} tenants, {statistics_}")
        if key not in worst or _spread(worst[key]).median < _spread(each).median:
            worst[key] = each
    return pivot(
        [
            {"row": row, "column": column, "cell": f"{_spread(each)}{_pair(each)}"}
            for (row, column), each in worst.items()
        ]
    )


def _pair(each: Mapping[str, Any]) -> str:
    if _spread(each).median == 1:
        return ""
    planned = dict.fromkeys(pair.partition(",")[0] for pair in each["planned_for"])
    return f", {each['tenant']} by the plan of {' or '.join(planned)}"


def _asked(each: Mapping[str, Any]) -> str:
    return f"{each['shape']}, {each['protocol']}"


def _spread(each: Mapping[str, Any]) -> Spread:
    return Spread.of_figures(each["server"] or each["time"])


def _worst(title: str, bound: float, figures: Sequence[Mapping[str, Any]]) -> Goal:
    worst = max(figures, key=lambda each: _waited(each).median)
    which = _asked(worst) if "protocol" in worst else worst["shape"]
    return Goal(f"{title} (worst: {which})", bound, _waited(worst))


def _waited(each: Mapping[str, Any]) -> Spread:
    return Spread.of_figures(each["time"])


def measure(bench: Bench, grounds: Mapping[str, list[Ground]]) -> dict[str, Any]:
    """Return the figures of all parts."""
    (many,), (few,), (apart,) = (grounds[name] for name in ("many", "few", "apart"))
    sizes, parted = grounds["sizes"], grounds["partitions"]
    even = next((each for each in sizes if each.rows == many.rows), sizes[-1])
    return {
        "shapes": list(bench.shapes(even, many)),
        "sizes": list(bench.sizes(sizes)),
        "partitions": list(bench.partitions(parted)),
        "kept_plans": [
            *bench.kept_plans(many, target=None),
            *bench.kept_plans(few, target=None),
            *bench.kept_plans(few, target=-1),
        ],
        "expressions": list(bench.expressions(grounds["tried"])),
        "indexes": list(bench.indexes(apart)),
        "plans": list(bench.plans([even, parted[0]])),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when everything was measured, whatever came of it."""
    options = parser("bench.shapes", __doc__)
    options.add_argument("--large", action="store_true", help="a table of 10,000,000 rows too")
    options.add_argument("--rounds", type=int, help="default 100, quick 8")
    chosen = options.parse_args(arguments)
    rounds = chosen.rounds or (8 if chosen.quick else 100)
    grounds = choose_grounds(
        *((4, 5, 5) if chosen.quick else (5, 6, 7 if chosen.large else 6)),
    )
    with (
        Progress(console=console(), transient=True) as progress,
        find_server("embedded") as server,
    ):
        database = server.create_database()
        filling = progress.add_task("filling the tables", total=None)
        lay(database, *chain.from_iterable(grounds.values()))
        progress.remove_task(filling)
        with backend(database.app_url) as connection:
            bench = Bench(database, connection, progress, rounds, few=chosen.quick)
            figures = about(server.version) | {"rounds": rounds} | measure(bench, grounds)
    for name, (headings, rows) in _pivots(figures).items():
        console().print(shown(name, headings, rows))
    publish(figures, chosen, goals=goals(figures), tables=tables(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())

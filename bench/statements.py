"""The shapes of a tenant's queries, and how long one of them takes.

A shape is one text, from which each of the ways to ask is made: what is in [ ] names the tenant and
is left out where the policy alone does, `<items>` is a table in a FROM. Simple is what psycopg2
sends, a text with its values in it; prepared is a statement that was parsed before. Both go
through libpq itself, without a driver in front of it, so that the client adds what it must and no
more. What the server's process spends on them is read beside it, which no client can hide.
"""

import re
import statistics
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

from psycopg import pq
from sqlalchemy.engine import URL

from bench.figures import Spread, turns
from bench.grounds import Tenant
from tenantry.config import DEFAULT_CONFIG, libpq_url
from tenantry.models import current_tenant

Protocol = Literal["simple", "prepared"]
Way = Literal["policy", "explicit", "both", "expression"]
PROTOCOLS: Final[tuple[Protocol, ...]] = ("simple", "prepared")
MANY: Final = 1000

_WARM_UP: Final = 4
# Of a slice: microseconds, and statements at most.
_SLICE: Final = 1000
_LONGEST: Final = 10
# The server chooses between its plans after five.
_EXECUTIONS: Final = 8

_NAMED: Final = re.compile(r"\[(.*?)\]")
_TABLE: Final = re.compile(r"<(\w+)>")
_TENANT: Final = "organization_id = $t"
_FAILURES: Final = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)

Values = tuple[str, ...]


def _of_items(tenant: Tenant) -> Iterator[Values]:
    yield from ((item,) for item, _ in tenant.rows)


def _of_folders(tenant: Tenant) -> Iterator[Values]:
    yield from ((folder,) for folder in sorted({folder for _, folder in tenant.rows}))


def _new(tenant: Tenant) -> Iterator[Values]:
    # A new id each time: a rolled back row's would be looked at again.
    for _, folder in tenant.rows:
        yield str(uuid.uuid4()), folder


def _many_new(tenant: Tenant) -> Iterator[Values]:
    ids = ",".join(str(uuid.uuid4()) for _ in range(MANY))
    yield f"{{{ids}}}", tenant.rows[0][1]


def _none(_: Tenant) -> Iterator[Values]:
    yield ()


@dataclass(frozen=True, slots=True)
class Shape:
    """A kind of query.

    Attributes:
        name: of the shape.
        text: from which each way's statement is made.
        values: which a tenant's statements have, one after the other.
        writes: it changes rows, so that it is rolled back and the table vacuumed.
        row: of a statement of `MANY` rows, which has all their values in it where it is simple.
    """

    name: str
    text: str
    values: Callable[[Tenant], Iterator[Values]]
    writes: bool = False
    row: str | None = None

    def statement(self, schema: str, way: Way) -> str:
        """Return the statement with parameters; the tenant's is `$t`."""
        return _rendered(self.text, schema, way)

    def simple(self, schema: str, way: Way, tenant: Tenant, values: Values) -> bytes:
        """Return the statement with its values in it."""
        text = self.statement(schema, way)
        if self.row is not None:
            row, (ids, *others) = _rendered(self.row, schema, way), values
            rows = (_filled(row, (each, *others), tenant) for each in ids[1:-1].split(","))
            return f"{text.partition(' select ')[0]} values {', '.join(rows)}".encode()
        return _filled(text, values, tenant).encode()


_COLUMNS: Final = "id, name, created_at"
SHAPES: Final = (
    Shape("point", f"select {_COLUMNS} from <items> where [{_TENANT} and ]id = $1", _of_items),
    Shape("count", f"select count(*) from <items>[ where {_TENANT}]", _none),
    Shape(
        "page of 50",
        f"select {_COLUMNS} from <items>[ where {_TENANT}] order by created_at desc, id desc "
        "limit 50",
        _none,
    ),
    Shape(
        "join",
        "select items.id, items.name, folders.name from <folders> join <items> on "
        "items.organization_id = folders.organization_id and items.folder_id = folders.id "
        f"where [folders.{_TENANT} and ]folders.id = $1",
        _of_folders,
    ),
    Shape(
        "insert 1",
        "insert into {schema}.items ([organization_id, ]id, folder_id, name) "
        "values ([$t, ]$1, $2, 'new')",
        _new,
        writes=True,
    ),
    Shape(
        "insert 1,000",
        "insert into {schema}.items ([organization_id, ]id, folder_id, name) "
        "select [$t, ]new, $2, 'new' from unnest($1::uuid array) as new",
        _many_new,
        writes=True,
        row="([$t, ]$1, $2, 'new')",
    ),
    Shape(
        "update by key",
        f"update {{schema}}.items set name = 'changed' where [{_TENANT} and ]id = $1",
        _of_items,
        writes=True,
    ),
    Shape(
        "delete by key",
        f"delete from {{schema}}.items where [{_TENANT} and ]id = $1",
        _of_items,
        writes=True,
    ),
)
PAGE: Final = SHAPES[2]
# What a plan for few rows would be worst for: all that a tenant has, from two tables.
REPORT: Final = Shape(
    "report",
    "select folders.id, count(*) from <folders> join <items> on items.organization_id = "
    f"folders.organization_id and items.folder_id = folders.id [where folders.{_TENANT}] "
    "group by folders.id order by 2 desc limit 10",
    _none,
)


def _rendered(text: str, schema: str, way: Way) -> str:
    """Return a text for one way of asking.

    `both` is what the session layer's mode `both` sends; `expression` names the tenant by the
    policy's expression.
    """
    reads = text.startswith("select")
    named = way in {"explicit", "expression"} or (way == "both" and not reads)
    table = rf"{schema}.\1"
    if way == "both" and reads:
        table = rf"(select * from {schema}.\1 where {_TENANT}) as \1"
    text = _NAMED.sub(r"\1" if named else "", text).replace("{schema}", schema)
    if way == "expression":
        text = text.replace("$t", current_tenant())
    return _TABLE.sub(table, text)


def _filled(text: str, values: Values, tenant: Tenant) -> str:
    text = text.replace("$t", f"'{tenant.id}'")
    for number, value in enumerate(values, start=1):
        text = text.replace(f"${number}", f"'{value}'")
    return text


@dataclass(frozen=True, slots=True)
class Time:
    """What one statement took, in microseconds.

    Attributes:
        waited: by the client.
        spent: by the server's process; 0 where the system does not tell.
        rows: that came or were changed.
    """

    waited: float
    spent: float
    rows: int


@dataclass(slots=True)
class Backend:
    """A connection of the application's, and the process that serves it.

    One connection asks in all ways, so that whatever becomes of its process meets all of them.
    """

    connection: pq.abc.PGconn
    _names: dict[object, bytes] = field(default_factory=dict)

    def run(self, text: str) -> list[str]:
        """Send a text, and return the first column of what came."""
        result = _checked(self.connection.exec_(text.encode()))
        values = (result.get_value(row, 0) for row in range(result.ntuples))
        return [(value or b"").decode() for value in values]

    def act_for(self, tenant: Tenant) -> None:
        """Set the tenant for all that follows."""
        setting = DEFAULT_CONFIG.organization_setting
        self.run(f"select set_config('{setting}', '{tenant.id}', false)")

    def forget(self) -> None:
        """Deallocate every prepared statement."""
        self._names.clear()
        self.run("deallocate all")

    def prepare(self, key: object, text: str, values: int) -> bool:
        """Prepare a statement whose tenant comes after its other values; False if it was before."""
        if key in self._names:
            return False
        name = self._names[key] = f"statement_{len(self._names)}".encode()
        text = text.replace("$t", f"${values + 1}")
        _checked(self.connection.prepare(name, text.encode()))
        return True

    def simple(self, texts: Sequence[bytes]) -> Time:
        """Send each text, and return what one took."""
        return self._timed(self.connection.exec_, [(text,) for text in texts])

    def prepared(self, key: object, values: Sequence[Sequence[bytes]]) -> Time:
        """Execute a prepared statement with each of the values, and return what one took."""
        name = self._names[key]
        return self._timed(self.connection.exec_prepared, [(name, each) for each in values])

    def plan(self, key: object, values: Sequence[bytes], options: str) -> str:
        """Return the plan by which a prepared statement is executed."""
        quoted = ", ".join(f"'{value.decode()}'" for value in values)
        arguments = f"({quoted})" if quoted else ""
        name = self._names[key].decode()
        return "\n".join(self.run(f"explain ({options}) execute {name}{arguments}"))

    def _timed(
        self, send: Callable[..., pq.abc.PGresult], messages: Sequence[tuple[object, ...]]
    ) -> Time:
        spent, start = self._spent(), time.perf_counter_ns()
        for message in messages:
            result = send(*message)
        waited, spent = time.perf_counter_ns() - start, self._spent() - spent
        rows = _checked(result).ntuples or int(result.command_tuples or 0)
        return Time(waited / len(messages) / 1000, spent / len(messages) / 1000, rows)

    def _spent(self) -> int:
        """Return the nanoseconds that the server's process has run, as Linux tells them."""
        told = Path(f"/proc/{self.connection.backend_pid}/schedstat")
        return int(told.read_text().partition(" ")[0]) if told.exists() else 0


def _checked(result: pq.abc.PGresult) -> pq.abc.PGresult:
    if result.status in _FAILURES:
        raise RuntimeError((result.error_message or b"the server answered nothing").decode())
    return result


@contextmanager
def backend(url: URL) -> Iterator[Backend]:
    """Yield a connection whose queries have no workers: they would hide what there is to do."""
    connection = pq.PGconn.connect(libpq_url(url).encode())
    try:
        if connection.status != pq.ConnStatus.OK:
            raise RuntimeError(connection.error_message.decode())
        opened = Backend(connection)
        opened.run("set max_parallel_workers_per_gather = 0")
        yield opened
    finally:
        connection.finish()


@dataclass(frozen=True, slots=True)
class Asker:
    """Who takes part in a race: a way to ask one schema, for some tenants by turns.

    Attributes:
        schema: that is asked.
        way: in which the tenant is named.
        tenants: one a round.
        planned_for: the tenant whose prepared plan is used; each round's own, where None.
        mode: the server's plan_cache_mode.
    """

    schema: str
    way: Way
    tenants: tuple[Tenant, ...]
    planned_for: Tenant | None = None
    mode: str = "auto"


def race(
    backend: Backend,
    shape: Shape,
    protocol: Protocol,
    askers: Mapping[str, Asker],
    rounds: int,
) -> dict[str, list[Time]]:
    """Return what each asker took in each round, in which all of them take turns.

    Each round is a slice of statements inside of a transaction that is rolled back. The first
    rounds, which do not count, find out how long a slice has to be, and that all get the same rows.

    Raises:
        RuntimeError: not all of them do.
    """
    times: dict[str, list[Time]] = {name: [] for name in askers}
    values = {name: [_endless(shape, each) for each in a.tenants] for name, a in askers.items()}
    size = 1
    for number in range(-_WARM_UP, rounds):
        found = {}
        for name in turns(list(askers), number + _WARM_UP):
            asker, mine = askers[name], values[name][number % len(values[name])]
            tenant = asker.tenants[number % len(asker.tenants)]
            _warm(backend, shape, protocol, asker, mine)
            backend.run(f"set plan_cache_mode = {asker.mode}")
            backend.act_for(tenant)
            found[name] = _slice(backend, shape, protocol, asker, tenant, islice(mine, size))
        if number >= 0:
            for name, taken in found.items():
                times[name].append(taken)
        elif len({taken.rows for taken in found.values()}) != 1:
            raise RuntimeError(f"{shape.name}, {protocol}: not all found the same: {found}")
        else:
            size = max(1, min(_LONGEST, int(_SLICE / max(t.waited for t in found.values()))))
    return times


def plan(backend: Backend, shape: Shape, asker: Asker) -> str:
    """Return the plan of a simple query for the asker's first tenant."""
    tenant = asker.tenants[0]
    backend.act_for(tenant)
    text = shape.simple(asker.schema, asker.way, tenant, next(shape.values(tenant)))
    return "\n".join(backend.run(f"explain (costs off) {text.decode()}"))


def kept_plan(backend: Backend, shape: Shape, asker: Asker, options: str = "costs off") -> str:
    """Return the plan that was kept for one tenant, as it is executed for the asker's own."""
    tenant = asker.tenants[0]
    values = _endless(shape, tenant)
    _warm(backend, shape, "prepared", asker, values)
    backend.run(f"set plan_cache_mode = {asker.mode}")
    backend.act_for(tenant)
    (bound,) = _bound(shape, asker, tenant, islice(values, 1))
    return backend.plan(_key(shape, asker), bound, options)


def _slice(
    backend: Backend,
    shape: Shape,
    protocol: Protocol,
    asker: Asker,
    tenant: Tenant,
    values: Iterable[Values],
) -> Time:
    backend.run("begin")
    if protocol == "simple":
        texts = [shape.simple(asker.schema, asker.way, tenant, each) for each in values]
        taken = backend.simple(texts)
    else:
        taken = backend.prepared(_key(shape, asker), _bound(shape, asker, tenant, values))
    backend.run("rollback")
    return taken


def _warm(
    backend: Backend, shape: Shape, protocol: Protocol, asker: Asker, values: Iterator[Values]
) -> None:
    """Prepare the statement once, and execute it until the server keeps a plan of it."""
    if protocol == "simple":
        return
    tenant = asker.planned_for or asker.tenants[0]
    if asker.planned_for is not None:
        values = _endless(shape, asker.planned_for)
    statement = shape.statement(asker.schema, asker.way)
    if not backend.prepare(_key(shape, asker), statement, len(next(values))):
        return
    backend.run(f"set plan_cache_mode = {asker.mode}")
    backend.act_for(tenant)
    for _ in range(_EXECUTIONS):
        _slice(backend, shape, protocol, asker, tenant, islice(values, 1))


def _bound(
    shape: Shape, asker: Asker, tenant: Tenant, values: Iterable[Values]
) -> list[list[bytes]]:
    named = "$t" in shape.statement(asker.schema, asker.way)
    return [
        [value.encode() for value in (*each, *([tenant.id] if named else []))] for each in values
    ]


def _key(shape: Shape, asker: Asker) -> tuple[object, ...]:
    planned = asker.planned_for.id if asker.planned_for else None
    return shape.name, asker.schema, asker.way, planned, asker.mode


def _endless(shape: Shape, tenant: Tenant) -> Iterator[Values]:
    while True:
        yield from shape.values(tenant)


def cost(times: Sequence[Time]) -> float:
    """Return the microseconds that the server spent; that the client waited, where none tells."""
    return statistics.median(each.spent or each.waited for each in times)


def ratios(own: Sequence[Time], base: Sequence[Time]) -> dict[str, Any]:
    """Return the spreads of the rounds' ratios, of what the client waited and the server spent."""
    told = all(time.spent for time in base)
    server = Spread.of_ratios([t.spent for t in own], [t.spent for t in base]) if told else None
    return {
        "time": Spread.of_ratios([t.waited for t in own], [t.waited for t in base]).figures(),
        "server": server and server.figures(),
    }


def compared(
    shape: Shape, protocol: Protocol, times: Mapping[str, list[Time]], way: str = "policy"
) -> dict[str, Any]:
    """Return what a way of asking took, against the explicit filter."""
    own, base = times[way], times["explicit"]
    return {
        "shape": shape.name,
        "protocol": protocol,
        "explicit_us": cost(base),
        "added_us": cost(own) - cost(base),
    } | ratios(own, base)

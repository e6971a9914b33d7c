"""A begin that is interrupted leaves no tenant of before: what is executed next is for its own."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import psycopg2.extensions
import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session
from tests.fixtures.worlds import WALLS, WAYS, A, B, Wall, World, names_of, seen, stop_comparing

from tenantry import TenancyError, set_tenant
from tenantry.config import ContextWay
from tenantry.database import TENANCY_OPTION, Tenancy, connection_state
from tenantry.ways import Folded, Prefixed, Separate

Target = Session | Connection


@pytest.fixture(params=WALLS, ids=str)
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return a protected engine with one connection."""
    wall: Wall = request.param
    with world.engine(wall) as engine:
        yield engine


class Interruption(BaseException):
    """What a signal's handler raises in the midst of anything."""


@contextlib.contextmanager
def after_a(engine: Engine, kind: type[Target]) -> Iterator[Target]:
    """Yield a Connection that was A's and is now B's, or a Session of B's on one that was A's."""
    with engine.connect() as connection:
        if kind is Connection:
            set_tenant(connection, A)
            assert seen(connection) == names_of("a")
            connection.commit()
            set_tenant(connection, B)
            yield connection
        else:
            with Session(connection) as session:
                set_tenant(session, A)
                assert seen(session) == names_of("a")
                session.commit()
            with Session(connection) as session:
                set_tenant(session, B)
                yield session


@contextlib.contextmanager
def interrupted_before(engine: Engine) -> Iterator[None]:
    """Interrupt the next begin before the tenant is written, or waits to be."""

    def announce(self: Separate, *_: Any) -> None:
        _interrupt()

    yield from _once(way_of(engine), "announce", announce)


@contextlib.contextmanager
def interrupted_after(engine: Engine) -> Iterator[None]:
    """Interrupt the next begin when the server knows the tenant, and nobody else does."""
    way = way_of(engine)

    def announce(self: Separate, connection: Any, *args: Any) -> None:
        way.announce(self, connection, *args)
        _interrupt()

    def carry(self: Separate, connection: Any, send: Callable[[str], None]) -> None:
        way.carry(self, connection, send)
        _interrupt()

    if way.waits:
        yield from _once(way, "carry", carry)
    else:
        yield from _once(way, "announce", announce)


@contextlib.contextmanager
def cancelled(engine: Engine) -> Iterator[None]:
    """Have the server cancel the next begin's write, for it takes too long."""
    way = way_of(engine)
    wait = "set local statement_timeout = 10; select pg_catalog.pg_sleep(10);"

    def announce(self: Separate, connection: Any, *_: Any) -> None:
        psycopg2.extensions.cursor(connection).execute(wait)

    def carry(self: Separate, connection: Any, send: Callable[[str], None]) -> None:
        way.carry(self, connection, lambda opening: send(opening + wait))

    if way.waits:
        yield from _once(way, "carry", carry)
    else:
        yield from _once(way, "announce", announce)


@contextlib.contextmanager
def interrupted_by_a_listener(engine: Engine) -> Iterator[None]:
    """Have a listener of the application's fail at the next begin."""

    def fail(_: Connection) -> None:
        event.remove(engine, "begin", fail)
        _interrupt()

    event.listen(engine, "begin", fail)
    yield


def _interrupt() -> None:
    raise Interruption


def way_of(engine: Engine) -> type[Separate]:
    """Return the class of the way in which this engine's connections send the tenant."""
    tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
    return {"separate": Separate, "begin": Folded}.get(tenancy.admission.context, Prefixed)


def _once(way: type[Separate], name: str, instead: Callable[..., None]) -> Iterator[None]:
    """Have something else done in place of a way's method, once."""
    own = vars(way).get(name)

    def put_back() -> None:
        if own is None:
            delattr(way, name)
        else:
            setattr(way, name, own)

    def act_once(self: Separate, *args: Any) -> None:
        put_back()
        instead(self, *args)

    setattr(way, name, act_once)
    try:
        yield
    finally:
        if vars(way).get(name) is act_once:
            put_back()


INTERRUPTIONS = (interrupted_before, interrupted_after, cancelled, interrupted_by_a_listener)


def check_next_is_for_its_own(
    engine: Engine, kind: type[Target], interrupt: Callable[[Engine], Any]
) -> None:
    """After an interrupted begin B's next statements read B's rows, or fail, until a rollback."""
    with after_a(engine, kind) as target:
        with (
            interrupt(engine),
            pytest.raises((Interruption, DBAPIError)),
        ):
            seen(target)
        for _ in range(2):
            with contextlib.suppress(DBAPIError, InvalidRequestError, TenancyError):
                assert seen(target) == names_of("b")
        target.rollback()
        assert seen(target) == names_of("b")
    with engine.connect() as connection:
        assert seen(connection) == set()


@pytest.mark.parametrize("interrupt", INTERRUPTIONS)
@pytest.mark.parametrize("kind", [Connection, Session])
def test_interrupted_begin_brings_no_earlier_tenant_back(
    engine: Engine, kind: type[Target], interrupt: Callable[[Engine], Any]
) -> None:
    """Whatever interrupts a begin, the last tenant is in place for nothing that follows."""
    check_next_is_for_its_own(engine, kind, interrupt)


def test_interruption_at_any_point_brings_no_earlier_tenant_back(world: World) -> None:
    """A signal that comes at some moment of B's first statement does not let the next read A's."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("signals are handled in the main thread")

    def interrupt(_: int, __: FrameType | None) -> None:
        raise Interruption

    chance, counts, stop = random.Random(7), {"before": 0, "after": 0}, time.monotonic() + 4  # noqa: S311
    handler = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with world.engine() as engine:
            while time.monotonic() < stop or min(counts.values()) == 0:
                counts[_interrupt_once(engine, chance.uniform(0, 5e-3))] += 1
    finally:
        signal.signal(signal.SIGUSR1, handler)


def _interrupt_once(engine: Engine, delay: float) -> str:
    connection = engine.connect()
    try:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.commit()
        set_tenant(connection, B)
        timer = threading.Timer(delay, signal.raise_signal, [signal.SIGUSR1])
        try:
            timer.start()
            assert seen(connection) == names_of("b")
            timer.cancel()
            timer.join()
        except Interruption:
            with contextlib.suppress(DBAPIError, InvalidRequestError, TenancyError):
                assert seen(connection) == names_of("b")
            return "before"
        return "after"
    finally:
        connection.invalidate()
        connection.close()


def check_interrupted_write(engine: Engine) -> None:
    """Interrupt a write that no transaction takes back, when the server has it already."""
    with engine.connect() as connection:
        state = connection_state(connection)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        assert seen(connection) == set()
        write = state.write

        def write_and_fail(*args: Any, **options: Any) -> None:
            write(*args, **options)
            _interrupt()

        state.write = write_and_fail
        with pytest.raises(Interruption):
            set_tenant(connection, A)
        state.write = write
    with contextlib.closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.execute("select name from test_sets")
        assert cursor.fetchall() == []


@pytest.mark.parametrize("way", WAYS)
def test_interrupted_write_does_not_go_back_to_the_pool(
    world: World, way: ContextWay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenant that the server was told in AUTOCOMMIT is cleared, whoever did not learn of it."""
    with world.engine(Wall("database", "session", way)) as engine:
        check_interrupted_write(engine)
    monkeypatch.setattr("tenantry.ways.UNKNOWN", None)
    with (
        world.engine(Wall("database", "session", way)) as engine,
        pytest.raises(AssertionError),
    ):
        check_interrupted_write(engine)


def test_without_the_comparison_the_earlier_tenant_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing the tenant at each statement is what holds: without it B reads A's rows.

    A Connection that gets another tenant writes it at once, which is taken away as well.
    """
    with world.engine(Wall("database", "session")) as engine:
        tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
        monkeypatch.setattr(tenancy, "write_between_transactions", lambda *_: None)
        check_next_is_for_its_own(engine, Connection, interrupted_before)
        stop_comparing(engine)
        with pytest.raises(AssertionError):
            check_next_is_for_its_own(engine, Connection, interrupted_before)

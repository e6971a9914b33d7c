"""How often a transaction waits for the server, counted on the wire: the tenant adds nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import sqlalchemy
from bench.wire import Wire
from sqlalchemy import Engine, func, insert, select, text, update
from sqlalchemy.orm import Session
from tests.fixtures.drivers import engine_of
from tests.fixtures.worlds import DATABASE_WALLS, DRIVER_WALLS, A, Wall, World, bound, names_of

from assay.models import TestSet
from tenantry import set_tenant
from tenantry.cursors import ContextCursor
from tenantry.drivers.psycopg import _Carrying

Program = Callable[[Session], object]

# A Session of SQLAlchemy 2.0 is known when its transaction has begun for nobody: what is sent by
# itself is sent twice.
SEPARATE: Final = 2 if sqlalchemy.__version__.startswith("2.0.") else 1
ADDED: Final = {"prefix": 0, "separate": SEPARATE, "begin": -1, "auto": 0}
RETURNED: Final = {"session": 1, "transaction": 0}


@pytest.fixture(params=(*DATABASE_WALLS, *DRIVER_WALLS), ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each way in each scope."""
    wall: Wall = request.param
    return wall


@contextmanager
def on_the_wire(world: World, wall: Wall, **options: Any) -> Iterator[tuple[Engine, Wire]]:
    """Yield an engine with one connection that is open already, and the wire that it is on."""
    with Wire(world.walled.app_url) as wire:
        walled = World(_at(world.walled, wire), world.open)
        with walled.engine(wall, **options) as engine:
            with bound(engine, A) as session:
                session.scalars(select(TestSet)).all()
            wire.clear()
            yield engine, wire


def _at(database: Any, wire: Wire) -> Any:
    class Elsewhere:
        app_url = wire.url

        def __getattr__(self, name: str) -> Any:
            return getattr(database, name)

    return Elsewhere()


def look_up(session: Session) -> None:
    """Read one row by its key, as the ORM does, and commit."""
    session.scalars(select(TestSet).where(TestSet.name == "a1", TestSet.organization_id == A)).one()
    session.commit()


def read_in_core(session: Session) -> None:
    """Read by Core, and commit."""
    session.connection().execute(select(TestSet.__table__.c.name)).all()
    session.commit()


def read_twice(session: Session) -> None:
    """Read two things in one transaction."""
    for name in ("a1", "a2"):
        session.execute(select(TestSet.id).where(TestSet.name == name)).all()
    session.commit()


def read_text(session: Session) -> None:
    """Read by SQL text."""
    session.execute(text("select name from test_sets")).all()
    session.commit()


def write(session: Session) -> None:
    """Change a row by a statement, and roll back, so that it can be done again."""
    session.execute(update(TestSet).where(TestSet.name == "a1").values(description="changed"))
    session.rollback()


def insert_rows(session: Session) -> None:
    """Insert several rows in one message, and roll back."""
    session.execute(insert(TestSet), [{"organization_id": A, "name": f"a{n}"} for n in (7, 8)])
    session.rollback()


def flush(session: Session) -> None:
    """Insert a row by the unit of work, and roll back."""
    session.add(TestSet(organization_id=A, name="a9"))
    session.flush()
    session.rollback()


def save_first(session: Session) -> None:
    """Begin with a savepoint."""
    with session.begin_nested():
        session.execute(select(TestSet.id)).all()
    session.commit()


def roll_back(session: Session) -> None:
    """Read, and roll back."""
    session.execute(select(TestSet.id)).all()
    session.rollback()


PROGRAMS: Final = (
    look_up,
    read_in_core,
    read_twice,
    read_text,
    write,
    insert_rows,
    flush,
    save_first,
    roll_back,
)


def plain_trips(world: World, wall: Wall, program: Program) -> int:
    """Return the round trips of the same program on a plain engine, without tenants."""
    with Wire(world.open.app_url) as wire:
        engine = engine_of(wall.driver, wire.url, pool_size=1, max_overflow=0)
        for _ in range(2):
            wire.clear()
            with Session(engine) as session:
                program(session)
        engine.dispose()
        return wire.trips


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_tenant_adds_no_round_trip(world: World, wall: Wall, program: Program) -> None:
    """Each program waits as often as without tenants; once more on return, in scope `session`."""
    plain = plain_trips(world, wall, program)
    with on_the_wire(world, wall) as (engine, wire):
        for _ in range(2):
            wire.clear()
            with bound(engine, A) as session:
                program(session)
        assert wire.trips - plain == ADDED[wall.context] + RETURNED[wall.scope], wire.queries


def test_transaction_without_a_statement_sends_nothing(world: World, wall: Wall) -> None:
    """Where nothing is asked, nothing is sent, except where the context is sent by itself."""
    with on_the_wire(world, wall) as (engine, wire):
        with bound(engine, A) as session:
            session.connection()
            session.commit()
        begun = [query for query in wire.queries if query.lower().startswith("begin")]
        assert len(begun) == (wall.context == "separate")
        assert wire.trips <= RETURNED[wall.scope] + (2 + SEPARATE) * len(begun)


def answered(wall: Wall) -> int:
    """Return the round trips until the first answer; asyncpg has a statement prepared first."""
    return {"prefix": 2, "separate": 3, "begin": 1, "auto": 2 + (wall.driver == "asyncpg")}[
        wall.context
    ]


def test_answer_comes_without_a_round_trip_more(world: World, wall: Wall) -> None:
    """Until the answer is there the client has waited for BEGIN and for the statement."""
    with on_the_wire(world, wall) as (engine, wire), engine.connect() as connection:
        set_tenant(connection, A)
        assert {row.name for row in connection.execute(select(TestSet.name))} == names_of("a")
        assert wire.trips == answered(wall), wire.queries


@pytest.mark.parametrize("isolation_level", ["SERIALIZABLE", "REPEATABLE READ"])
def test_isolation_level_of_a_connection_is_the_transactions(
    world: World, wall: Wall, isolation_level: str
) -> None:
    """An isolation level holds for its transaction, and BEGIN is then a message of its own."""
    with on_the_wire(world, wall) as (engine, wire):
        options = {"isolation_level": isolation_level}
        with engine.connect().execution_options(**options) as connection:
            set_tenant(connection, A)
            wire.clear()
            level = connection.scalar(text("select current_setting('transaction_isolation')"))
            assert level == isolation_level.lower()
            assert wire.trips == max(answered(wall), 2), wire.queries
            assert connection.scalar(text("show transaction_isolation")) == isolation_level.lower()
            connection.commit()
        with engine.connect() as connection:
            level = connection.scalar(text("select current_setting('transaction_isolation')"))
            assert level == "read committed"


def test_what_could_leave_traces_is_cleared_away(world: World, wall: Wall) -> None:
    """A function that could take a lock costs a round trip on return, in each scope."""
    with on_the_wire(world, wall) as (engine, wire):
        with engine.connect() as connection:
            connection.execute(text("select pg_advisory_lock(42)"))
            connection.commit()
            before = wire.trips
        assert wire.trips - before == 1
        assert "pg_advisory_unlock_all" in wire.queries[-1]


def test_looking_before_there_is_a_tenant_adds_nothing(world: World, wall: Wall) -> None:
    """A function that promises to change nothing, called without a tenant, is not cleared after."""
    query = select(func.authenticate_token(b"none").table_valued("user_id").c.user_id)
    with on_the_wire(world, wall) as (engine, wire):
        with Session(engine) as session:
            assert session.scalars(query).all() == []
            session.commit()
        assert wire.trips == answered(wall) + 1, wire.queries


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_statement_stays_readable(world: World, wall: Wall) -> None:
    """What is sent ends with the statement on lines of its own, as the cursor tells it."""
    with on_the_wire(world, wall) as (engine, wire), engine.connect() as connection:
        set_tenant(connection, A)
        query = text("select name from test_sets where name = :name")
        cursor: Any = connection.execute(query, {"name": "a1"}).cursor
        statement = "select name from test_sets where name = 'a1'"
        assert cursor.query.decode() == statement
        assert cursor.statusmessage == "SELECT 1"
        assert wire.queries[-1].splitlines()[-1] == statement


def test_round_trip_that_is_added_is_noticed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cursor that sends every context by itself makes the count differ: the tests can fail."""
    prepared = ContextCursor.execute

    def execute(self: Any, query: Any, vars: Any = None) -> None:  # noqa: A002
        self.connection.send_context()
        prepared(self, query, vars)

    monkeypatch.setattr(ContextCursor, "execute", execute)
    for wall in DATABASE_WALLS[:2]:
        with pytest.raises(AssertionError):
            test_tenant_adds_no_round_trip(world, wall, look_up)


@pytest.mark.parametrize("wall", DRIVER_WALLS[:2], ids=str)
def test_round_trip_that_is_added_to_begin_is_noticed(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A BEGIN that is followed by the context in a message of its own makes the count differ."""
    together = _Carrying.send_gen

    def send_gen(self: Any, message: bytes) -> Any:
        for part in message.split(b"; ", 1):
            result = yield from together(self, part)
        return result

    monkeypatch.setattr(_Carrying, "send_gen", send_gen)
    with pytest.raises(AssertionError):
        test_tenant_adds_no_round_trip(world, wall, look_up)

"""Where filters are the only wall: cursors and connections of the driver that go round them."""

from collections.abc import Iterator
from io import StringIO
from typing import Any

import psycopg2.extensions
import psycopg2.extras
import pytest
from sqlalchemy import Connection, Engine, Integer, select
from sqlalchemy.exc import DBAPIError
from tests.fixtures.attacks import (
    Attack,
    attacked_world,
    check_confined,
    check_refused,
    loot,
    unwalled_engine,
)
from tests.fixtures.worlds import Wall, World

from assay.models import Test
from tenantry import ConfigurationError, UnfilterableStatementError
from tenantry.gate import CursorGuard
from tenantry.testing import Server

tests: Any = Test.__table__


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the attacks of this module are after."""
    with attacked_world(tenantry_server, tenantry_template) as world:
        yield world


@pytest.fixture(params=["filters", "auto"])
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine without the database's wall, asked for filters or fallen back on them."""
    with unwalled_engine(world, request.param) as engine:
        yield engine


def read_by(cursor: Any, query: str = "select prompt from tests") -> object:
    """Read everything with a cursor of the driver's."""
    cursor.execute(query)
    return cursor.fetchall()


def driver(connection: Connection) -> Any:
    """Return the driver's connection."""
    return connection.connection.dbapi_connection


def cursor_of_error(connection: Connection) -> Any:
    """Return the cursor of a statement that failed."""
    with pytest.raises(DBAPIError) as caught:
        connection.execute(select(1 / (tests.c.prompt == "none").cast(Integer)))
    connection.rollback()
    return caught.value.orig.cursor  # type: ignore[union-attr]


def cursor_in_the_midst(connection: Connection) -> Any:
    """Return the server-side cursor of a result that is not read to its end."""
    streaming = connection.execution_options(stream_results=True)
    return streaming.execute(select(tests.c.prompt)).cursor


CURSORS: dict[str, Attack] = {
    "plain": lambda c: read_by(c.connection.cursor()),
    "of a class": lambda c: read_by(
        c.connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor)
    ),
    "named": lambda c: read_by(c.connection.cursor("named")),
    "named, of a class": lambda c: read_by(
        c.connection.cursor("named", cursor_factory=psycopg2.extras.NamedTupleCursor)
    ),
    "of a result": lambda c: read_by(c.execute(select(tests.c.prompt)).cursor),
    "of a result that streams": lambda c: read_by(cursor_in_the_midst(c)),
    "of a result's connection": lambda c: read_by(
        c.execute(select(tests.c.prompt)).cursor.connection.cursor()
    ),
    "of the pool": lambda c: read_by(c.engine.raw_connection().cursor()),
    "of the driver's connection": lambda c: read_by(driver(c).cursor()),
    "harmless, and more": lambda c: read_by(
        c.connection.cursor(), "select 1; select prompt from tests"
    ),
    "exec_driver_sql": lambda c: c.exec_driver_sql("select prompt from tests"),
    "executemany": lambda c: c.connection.cursor().executemany("delete from tests", [()]),
    "callproc": lambda c: c.connection.cursor().callproc("current_database"),
    "copy_expert": lambda c: c.connection.cursor().copy_expert("copy tests to stdout", StringIO()),
    "copy_to": lambda c: c.connection.cursor().copy_to(StringIO(), "tests"),
    "copy_from": lambda c: c.connection.cursor().copy_from(StringIO(""), "tests"),
    "execute_values": lambda c: psycopg2.extras.execute_values(
        c.connection.cursor(), "insert into tests (prompt) values %s", [("x",)]
    ),
    "execute_batch": lambda c: psycopg2.extras.execute_batch(
        c.connection.cursor(), "delete from tests where prompt = %s", [("x",)]
    ),
    "large object": lambda c: driver(c).lobject(0, "w"),
}


@pytest.mark.parametrize("attack", CURSORS.values(), ids=CURSORS)
def test_cursor_of_the_driver_is_refused(world: World, engine: Engine, attack: Attack) -> None:
    """What the engine did not compile it does not let through, whatever cursor it is given to."""
    check_refused(world.open, engine, attack, UnfilterableStatementError)


def test_cursor_of_a_failed_statement_is_of_no_use(world: World, engine: Engine) -> None:
    """The cursor that an error brings along executes nothing any more."""
    check_refused(
        world.open,
        engine,
        lambda c: read_by(cursor_of_error(c)),
        UnfilterableStatementError,
        psycopg2.InterfaceError,
    )


def test_result_that_streams_shows_the_own_rows(world: World, engine: Engine) -> None:
    """A server-side cursor of the engine's own is no raw one."""

    def stream(connection: Connection) -> object:
        streaming = connection.execution_options(stream_results=True)
        return streaming.execute(select(tests.c.prompt)).all()

    assert "secret of a" in check_confined(world.open, engine, stream)


def test_guarded_cursor_is_of_the_class_that_was_asked_for(engine: Engine) -> None:
    """The guard is mixed into the class that was asked for, so that its rows are of its kind."""

    def attack(connection: Connection) -> object:
        cursor = connection.connection.cursor(cursor_factory=psycopg2.extras.DictCursor)
        assert isinstance(cursor, psycopg2.extras.DictCursor)
        return read_by(cursor, "select 1")

    assert loot(engine, attack) == "[[1]]"


def test_connections_that_cannot_be_guarded_are_refused(world: World) -> None:
    """An engine whose connections are of a class of its own is not without a wall unnoticed."""
    factory = {"connection_factory": type("Own", (psycopg2.extensions.connection,), {})}
    with (
        World(world.open, world.open).engine(Wall("filters", "session"), connect_args=factory) as e,
        pytest.raises(ConfigurationError, match="connection_factory"),
        e.connect(),
    ):
        pytest.fail("it was connected")


def test_without_the_guard_a_cursor_reads_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The guard in the cursor is what refuses: without it A reads B's rows."""
    monkeypatch.setattr(
        CursorGuard, "execute", lambda self, *args: super(CursorGuard, self).execute(*args)
    )
    with unwalled_engine(world) as engine:
        for attack in ("plain", "of a class", "named", "of a result"):
            with pytest.raises(AssertionError):
                check_confined(world.open, engine, CURSORS[attack])

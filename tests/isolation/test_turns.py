"""One Connection in turns of several tenants, where no event of SQLAlchemy's tells of the turn."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, exc, select, text, union_all
from sqlalchemy.orm import Session
from sqlalchemy.schema import DDL
from tests.fixtures.drivers import wire_of
from tests.fixtures.turns import SYNCHRONOUS, WALLED, names, turn
from tests.fixtures.worlds import (
    A,
    B,
    Wall,
    World,
    bound,
    names_of,
    seen,
)

from assay.models import TestSet
from tenantry import (
    TenantSwitchError,
    binding,
    sessions,
    set_tenant,
    tenancy,
    ways,
)
from tenantry.database import connection_state

PREFIX = Wall("database", "transaction", "prefix")


@pytest.fixture(params=WALLED, ids=str)
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine behind the database's wall."""
    with world.engine(request.param) as engine:
        yield engine


# A Connection that is given another physical one under its Sessions


def invalidate(connection: Connection) -> None:
    """Give the physical connection up."""
    connection.invalidate()


def lose(connection: Connection) -> None:
    """Have the network end it."""
    with contextlib.closing(wire_of(connection)) as wire:
        wire.shutdown(2)
    with pytest.raises(exc.DBAPIError):
        connection.execute(select(1))


def check_replaced(engine: Engine, end: Callable[[Connection], None]) -> None:
    """A's Session is still known on its Connection, so that B's does not join it there."""
    with engine.connect() as connection:
        connection.begin()
        first = Session(connection)
        set_tenant(first, A)
        assert seen(first) == names_of("a")
        end(connection)
        connection.rollback()
        connection.begin()
        second = Session(connection)
        set_tenant(second, B)
        with pytest.raises(TenantSwitchError, match="in use"):
            seen(second)
        second.close()
        with contextlib.suppress(exc.InvalidRequestError):
            assert seen(first) == names_of("a")
        first.close()
        connection.rollback()
        assert turn(connection, B) == names_of("b")


@pytest.mark.parametrize("end", [invalidate, lose])
@pytest.mark.parametrize("wall", SYNCHRONOUS, ids=str)
def test_session_stays_on_a_connection_that_is_replaced(
    world: World, wall: Wall, end: Callable[[Connection], None]
) -> None:
    """Sessions are known by their Connection, whatever it has behind it."""
    with world.engine(wall) as engine:
        check_replaced(engine, end)


def test_without_the_connections_own_list_a_replaced_one_leaks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To remember the Sessions with the physical connection loses them with it."""
    monkeypatch.setattr(sessions, "add_user", remember_physically)
    monkeypatch.setattr(tenancy, "users_on", users_physically)
    with world.engine(PREFIX) as engine, pytest.raises((AssertionError, pytest.fail.Exception)):
        check_replaced(engine, invalidate)


def remember_physically(connection: Connection, user: binding.Binding) -> None:
    """Note a Session with the physical connection."""
    connection.info.setdefault("users", []).append(user)


def users_physically(connection: Connection) -> list[binding.Binding]:
    """Return the Sessions that were noted so."""
    return [user for user in connection.info.get("users", ()) if user.uses(connection)]


# Savepoints that nobody tells of


def by_raw_cursor(connection: Connection) -> None:
    """Roll back to the savepoint on the driver's own cursor."""
    connection.connection.cursor().execute("rollback to savepoint mine")


def _ddl(statement: str) -> Any:
    return DDL(statement)  # type: ignore[no-untyped-call]


def by_ddl(connection: Connection) -> None:
    """Roll back to the savepoint as an element of DDL."""
    connection.execute(_ddl("rollback to savepoint mine"))


def by_listener(connection: Connection) -> None:
    """Roll back to the savepoint by a listener that puts it in another statement's place."""

    def replace(*arguments: Any) -> tuple[str, Any]:
        return "rollback to savepoint mine", arguments[3]

    event.listen(connection, "before_cursor_execute", replace, retval=True)
    connection.execute(_ddl("select 1"))
    event.remove(connection, "before_cursor_execute", replace)


def check_unnoticed(engine: Engine, rollback: Callable[[Connection], None]) -> None:
    """B, whose turn comes after a savepoint of A's was gone back to, sees its own."""
    with engine.connect() as connection, connection.begin():
        assert turn(connection, A) == names_of("a")
        connection.connection.cursor().execute("savepoint mine")
        assert turn(connection, B) == names_of("b")
        rollback(connection)
        assert turn(connection, B) == names_of("b")


@pytest.mark.parametrize("rollback", [by_raw_cursor, by_ddl, by_listener])
def test_savepoint_that_is_not_noticed_brings_nobody_back(
    engine: Engine, rollback: Callable[[Connection], None]
) -> None:
    """Where a transaction had several tenants, each statement says whose it is."""
    check_unnoticed(engine, rollback)


def test_tenant_that_came_late_outlives_a_block_of_the_drivers(engine: Engine) -> None:
    """A tenant bound after a savepoint is still told after the savepoint was gone back to."""
    with engine.connect() as connection, connection.begin(), Session(connection) as session:
        session.execute(text("select 1"))
        connection.connection.cursor().execute("savepoint mine")
        set_tenant(session, A)
        assert names(session) == names_of("a")
        by_raw_cursor(connection)
        assert names(session) == names_of("a")


def test_without_saying_it_again_a_savepoint_brings_another_tenant(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation: what was told last is believed."""
    monkeypatch.setattr(ways.Prefixed, "repeat", lambda *_: None)
    with world.engine(PREFIX) as engine, pytest.raises(AssertionError):
        check_unnoticed(engine, by_raw_cursor)


def test_text_that_rolls_back_and_goes_on_is_refused(engine: Engine) -> None:
    """In a transaction of several tenants, what follows would run for whom the savepoint was."""
    if engine.driver != "psycopg2":
        pytest.skip("its protocol refuses several commands in one text")
    with engine.connect() as connection, connection.begin():
        assert turn(connection, A) == names_of("a")
        connection.execute(text("savepoint mine"))
        with Session(connection) as session:
            set_tenant(session, B)
            assert names(session) == names_of("b")
            named = text("select name from test_sets where name <> 'rollback; abort'")
            assert set(session.execute(named).scalars()) == names_of("b")
            with pytest.raises(TenantSwitchError, match="a statement of its own"):
                session.execute(text("rollback to mine; select name from test_sets"))


@pytest.mark.parametrize("wall", [wall for wall in WALLED if wall.scope == "session"], ids=str)
def test_begin_in_text_brings_nobody_back(world: World, wall: Wall) -> None:
    """In AUTOCOMMIT a transaction that SQL text began goes back to what was there before it."""
    with world.engine(wall) as engine:
        options = {"isolation_level": "AUTOCOMMIT"}
        with engine.connect().execution_options(**options) as connection:
            set_tenant(connection, A)
            assert names(connection) == names_of("a")
            connection.execute(text("begin"))
            connection.commit()
            set_tenant(connection, B)
            assert names(connection) == names_of("b")
            connection.execute(text("rollback"))
            assert names(connection) == names_of("b")


# Cursors on the server


def check_stream(engine: Engine) -> None:
    """What A's Session still streams when B's turn has come is no row of B's."""
    several = union_all(*(select(TestSet.name) for _ in range(3)))
    with engine.connect() as connection, connection.begin():
        with Session(connection) as session:
            set_tenant(session, A)
            options = {"stream_results": True, "yield_per": 1}
            streamed = session.execute(several.execution_options(**options))
            assert streamed.fetchone()[0] in names_of("a")  # type: ignore[index]
            session.commit()
        assert turn(connection, B) == names_of("b")
        with contextlib.suppress(exc.DBAPIError):
            assert {name for (name,) in streamed.fetchall()} <= names_of("a")


def test_cursor_does_not_outlive_its_tenant(engine: Engine) -> None:
    """A policy asks for the tenant whenever a scan begins: such a cursor is closed."""
    check_stream(engine)


def test_cursor_of_nobodys_does_not_become_a_tenants(engine: Engine) -> None:
    """What was opened before A's Session joined shows no row of A's."""
    query = (
        "select (select min(name) from test_sets t where t.name > '' || left(g::text, 0)) "
        "from generate_series(1, 300) g"
    )
    with engine.connect() as connection, connection.begin():
        options = {"stream_results": True, "yield_per": 5}
        streamed = connection.execute(text(query).execution_options(**options))
        assert {name for (name,) in streamed.fetchmany(5)} == {None}
        assert turn(connection, A) == names_of("a")
        with contextlib.suppress(exc.DBAPIError):
            assert {name for (name,) in streamed.fetchall()} <= {None}


def test_own_cursor_outlives_savepoints(engine: Engine) -> None:
    """A Session that streams rows, and goes back to a savepoint for one, streams on."""
    with bound(engine, A) as session:
        options = {"stream_results": True, "yield_per": 1}
        streamed = session.execute(select(TestSet.name).execution_options(**options))
        found = set()
        for (name,) in streamed:
            found.add(name)
            with session.begin_nested() as savepoint:
                assert seen(session) == names_of("a")
                savepoint.rollback()
    assert found == names_of("a")


def test_without_closing_a_cursor_reads_another_tenants_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mutation: a turn ends, and its cursors stay open."""
    with world.engine(PREFIX) as engine:
        with engine.connect() as connection:
            state = type(connection_state(connection))
        monkeypatch.setattr(state, "changes_to", lambda *_: False)
        with pytest.raises(AssertionError):
            check_stream(engine)

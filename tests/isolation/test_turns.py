"""One Connection in turns of several tenants, where no event of SQLAlchemy's tells of the turn."""

import contextlib
import gc
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, event, exc, select, text, union_all, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlalchemy.schema import DDL
from tests.fixtures.drivers import ASYNCHRONOUS, run, wire_of
from tests.fixtures.worlds import (
    DRIVER_WALLS,
    WALLS,
    A,
    B,
    Wall,
    World,
    bound,
    names_of,
    seen,
)

from assay.models import Organization, TestSet
from tenantry import (
    CrossTenantError,
    TenantSwitchError,
    binding,
    sessions,
    set_tenant,
    tenancy,
    ways,
)
from tenantry.database import connection_state

SYNCHRONOUS = [wall for wall in (*WALLS, *DRIVER_WALLS) if wall.driver not in ASYNCHRONOUS]
WALLED = [wall for wall in SYNCHRONOUS if wall.mode == "database"]
TELLS_AT_BEGIN = [wall for wall in WALLED if wall.context == "separate"]
PREFIX = Wall("database", "transaction", "prefix")


class Base(DeclarativeBase):
    """The application's own."""


class KeyedSet(Base):
    """A set of tests by an application whose models have keys without the tenant."""

    __tablename__ = "test_sets"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    organization_id: Mapped[uuid.UUID]
    name: Mapped[str]


def names(target: Session | Connection) -> set[str]:
    """Return what SQL text finds, which nothing but the database's wall confines."""
    return set(target.execute(text("select name from test_sets")).scalars())


def turn(connection: Connection, tenant: uuid.UUID) -> set[str]:
    """Return what a Session sees that joins the Connection's transaction for a moment."""
    with Session(connection) as session:
        set_tenant(session, tenant)
        found = seen(session)
        session.commit()
        return found


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


# Sessions of which no begin tells


@contextlib.contextmanager
def first_listener(listener: Callable[..., None]) -> Iterator[None]:
    """Have the application's `after_begin` come before the layer's."""
    event.listen(Session, "after_begin", listener, insert=True)
    try:
        yield
    finally:
        event.remove(Session, "after_begin", listener)


def test_session_whose_begin_failed_is_known_all_the_same(engine: Engine) -> None:
    """A listener that raises ahead of the layer's leaves A's Session on B's Connection."""
    failing: list[bool] = []

    def fail(*_: Any) -> None:
        if failing:
            failing.clear()
            raise ValueError("once")

    with first_listener(fail), engine.connect() as connection, connection.begin():
        first = Session(connection)
        set_tenant(first, A)
        failing.append(True)
        with pytest.raises(ValueError, match="once"):
            seen(first)
        with Session(connection) as second:
            set_tenant(second, B)
            with pytest.raises(TenantSwitchError):
                seen(second)
        first.close()


def test_session_whose_info_was_cleared_stays_its_tenants(engine: Engine) -> None:
    """Who a Connection's user is does not depend on a dictionary of the application's."""
    with engine.connect() as connection, connection.begin():
        first = Session(connection)
        set_tenant(first, A)
        assert seen(first) == names_of("a")
        first.info.clear()
        gc.collect()
        with Session(connection) as second:
            set_tenant(second, B)
            with pytest.raises(TenantSwitchError):
                seen(second)
        assert names(first) == names_of("a")
        first.close()


@pytest.mark.parametrize("wall", TELLS_AT_BEGIN, ids=str)
def test_session_without_a_connection_lends_none_its_tenant(world: World, wall: Wall) -> None:
    """A Session that has begun and asked nothing is not who begins on its Connection."""
    with world.engine(wall) as engine, engine.connect() as connection:
        session = Session(connection)
        set_tenant(session, A)
        assert names(session) == names_of("a")
        session.commit()
        session.begin()
        connection.begin()
        cursor = connection.connection.cursor()
        cursor.execute("select name from test_sets")
        assert cursor.fetchall() == []
        connection.rollback()
        set_tenant(connection, B)
        assert names(connection) == names_of("b")
        session.close()


# Objects that a Session holds when its Connection becomes another tenant's


def routed(connection: Connection) -> Session:
    """Return a Session that finds its Connection by a method of its own."""

    class Routed(Session):
        def get_bind(self, *_: Any, **__: Any) -> Connection:
            return connection

    return Routed(expire_on_commit=False)


def given(connection: Connection) -> Session:
    """Return a Session that was given the Connection for one class."""
    return Session(binds={KeyedSet: connection}, expire_on_commit=False)


def plain(connection: Connection) -> Session:
    """Return a Session on the Connection."""
    return Session(connection, expire_on_commit=False)


@pytest.mark.parametrize("lose_it", [False, True])
@pytest.mark.parametrize("session_on", [plain, given, routed])
def test_held_objects_refuse_another_tenant(
    engine: Engine, session_on: Callable[[Connection], Session], lose_it: bool
) -> None:
    """What the identity map would serve to B keeps the Connection from becoming B's."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        with session_on(connection) as session:
            held = session.scalars(select(KeyedSet).where(KeyedSet.name == "a1")).one()
            session.commit()
            if lose_it:
                connection.invalidate()
            with pytest.raises(TenantSwitchError, match="holds objects"):
                set_tenant(connection, B)
            assert held.name == "a1"


@pytest.mark.parametrize("session_on", [plain, given, routed])
def test_new_objects_refuse_another_tenant(
    engine: Engine, session_on: Callable[[Connection], Session]
) -> None:
    """A row that was added when the Connection was A's is not filed under B."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        with session_on(connection) as session:
            session.add(KeyedSet(id=uuid.uuid4(), name="for a"))
            with pytest.raises(TenantSwitchError, match="holds objects"):
                set_tenant(connection, B)


def test_new_objects_are_the_first_tenants(engine: Engine) -> None:
    """A row that was added before any tenant was bound is filed under the one that is."""
    with engine.connect() as connection, Session(connection) as session:
        session.add(TestSet(name="added early"))
        set_tenant(connection, A)
        session.flush()
        assert "added early" in names(connection)
        session.rollback()


@pytest.mark.parametrize("take", ["add", "merge"])
def test_connections_tenant_is_asked_when_an_object_comes(engine: Engine, take: str) -> None:
    """An object of A's is not taken by a Session on a Connection of B's."""
    with bound(engine, A, expire_on_commit=False) as session:
        left = session.scalars(select(KeyedSet).where(KeyedSet.name == "a1")).one()
    with engine.connect() as connection:
        set_tenant(connection, B)
        with Session(connection) as session:
            options = {"load": False} if take == "merge" else {}
            with pytest.raises(CrossTenantError):
                getattr(session, take)(left, **options)


# Listeners that work for another tenant in the midst of a statement


@pytest.mark.parametrize("moment", ["before_cursor_execute", "do_execute"])
def test_listener_for_another_tenant_does_not_take_the_statement_along(
    engine: Engine, moment: str
) -> None:
    """Nobody's statement shows nothing, though a Session of B's worked before it was sent."""
    working: list[bool] = []

    def work(*arguments: Any) -> None:
        if working:
            working.clear()
            first = arguments[0]
            with Session(getattr(arguments[-1], "root_connection", first)) as session:
                set_tenant(session, B)
                assert names(session) == names_of("b")

    def before(connection: Connection, *_: Any) -> None:
        work(connection)

    event.listen(engine, moment, before if moment == "before_cursor_execute" else work)
    with engine.connect() as connection, connection.begin():
        assert names(connection) == set()
        working.append(True)
        assert names(connection) == set()
        assert not working


MODES = [
    Wall("both", "session", "begin"),
    Wall("both", "transaction", "prefix"),
    Wall("both", "transaction", driver="psycopg"),
    Wall("filters", "session"),
]


def check_forgotten(engine: Engine) -> None:
    """A statement of B's that fails before it is sent, in a listener, leaves A's as it was."""
    failing: list[bool] = []

    def fail(*_: Any) -> None:
        if failing:
            failing.clear()
            query = select(TestSet).where(TestSet.name == bindparam("forgotten"))
            with bound(engine, B) as session, pytest.raises(exc.StatementError):
                session.execute(query)

    event.listen(engine, "before_execute", fail)
    with bound(engine, A) as session:
        session.execute(select(Organization)).all()
        failing.append(True)
        assert set(session.scalars(select(TestSet.name))) == names_of("a")
        failing.append(True)
        assert session.execute(update(TestSet).values(description="own")).rowcount == 2  # type: ignore[attr-defined]
        session.rollback()
    event.remove(engine, "before_execute", fail)


@pytest.mark.parametrize("wall", MODES, ids=str)
def test_failed_statement_of_another_leaves_the_filters_alone(world: World, wall: Wall) -> None:
    """Whose a statement is holds while its own parameters are collected, and no longer."""
    with world.engine(wall, pool_size=3) as engine:
        run(wall.driver, check_forgotten, engine)

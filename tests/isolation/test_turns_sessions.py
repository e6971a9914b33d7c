"""Sessions in turns on one Connection, of whose begin, objects or listeners no event tells."""

import contextlib
import gc
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, event, exc, select, update
from sqlalchemy.orm import Session
from tests.fixtures.drivers import run
from tests.fixtures.turns import WALLED, AdoptedSet, names
from tests.fixtures.worlds import (
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
    set_tenant,
)

TELLS_AT_BEGIN = [wall for wall in WALLED if wall.context == "separate"]


@pytest.fixture(params=WALLED, ids=str)
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine behind the database's wall."""
    with world.engine(request.param) as engine:
        yield engine


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
    return Session(binds={AdoptedSet: connection}, expire_on_commit=False)


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
            held = session.scalars(select(AdoptedSet).where(AdoptedSet.name == "a1")).one()
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
            session.add(AdoptedSet(id=uuid.uuid4(), name="for a"))
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
        left = session.scalars(select(AdoptedSet).where(AdoptedSet.name == "a1")).one()
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

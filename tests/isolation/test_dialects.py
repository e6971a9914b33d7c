"""What SQLAlchemy's dialect tells the layer: nothing is dispatched for it, nor goes round it."""

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, create_engine, event, select, text
from sqlalchemy.orm import Session
from tests.fixtures.drivers import ASYNCHRONOUS, url_of
from tests.fixtures.turns import names, turn
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

from assay.models import TestSet
from tenantry import (
    MissingTenantError,
    TenantSwitchError,
    protect_engine,
    set_tenant,
    tenancy,
    ways,
)
from tenantry.database import TENANCY_OPTION, Tenancy

QUICK = [
    wall
    for wall in (*WALLS, *DRIVER_WALLS)
    if wall.mode == "database" and wall.context != "separate" and wall.driver not in ASYNCHRONOUS
]
NAMES = select(TestSet.name)


def names_on_a_raw_cursor(connection: Connection) -> set[str]:
    """Return what the driver's own cursor finds, of which SQLAlchemy tells nobody."""
    cursor = connection.connection.cursor()
    cursor.execute("select name from test_sets")
    return {name for (name,) in cursor.fetchall()}


@pytest.fixture(params=QUICK, ids=str)
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine whose context is no message of its own."""
    wall: Wall = request.param
    with world.engine(wall) as engine:
        yield engine


def test_no_listener_has_sqlalchemy_dispatch_each_step(engine: Engine) -> None:
    """An engine with one listener to a Connection's events is a tenth slower at all of them."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
    assert not engine._has_events
    assert engine.dialect._has_events


def test_tenant_adds_few_calls(world: World, engine: Engine) -> None:
    """What the client does for a tenant is counted, in calls of Python: a short unit of work."""

    def plain() -> None:
        with Session(bare) as session:
            session.scalars(NAMES.where(TestSet.organization_id == A)).all()
            session.commit()

    def tenants() -> None:
        with Session(engine) as session:
            set_tenant(session, A)
            session.scalars(NAMES).all()
            session.commit()

    bare = create_engine(world.open.app_url.set(drivername=engine.url.drivername))
    try:
        own, others = calls(tenants), calls(plain)
    finally:
        bare.dispose()
    # 38 to 57; with listeners to the Connection's events there would be sixty more.
    assert own - others < 60


def calls(work: Callable[[], None]) -> int:
    """Return how many functions of Python's are called, when everything was cached.

    The fewest of some times, since a collection of garbage in the midst calls what finalizes it.
    """
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    def counted() -> int:
        nonlocal count
        count = 0
        sys.setprofile(note)
        try:
            work()
        finally:
            sys.setprofile(None)
        return count

    for _ in range(3):
        work()
    return min(counted() for _ in range(5))


def test_statements_are_compiled_once(engine: Engine) -> None:
    """The dialect's class is the layer's, and SQLAlchemy goes on caching what it compiles."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
        cache: Any = engine._compiled_cache
        compiled = len(cache)
        assert compiled > 0
        assert seen(session) == names_of("a")
        assert len(cache) == compiled


def test_every_engine_has_its_own_layer(world: World) -> None:
    """Engines of one driver share the dialect's class, not what it tells."""
    wall = Wall("database", "transaction", "prefix")
    with world.engine(wall) as one, world.engine(wall) as other:
        assert type(one.dialect) is type(other.dialect)
        for engine in (one, other):
            dialect: Any = engine.dialect
            assert dialect.tenancy is engine.get_execution_options()[TENANCY_OPTION]


@pytest.mark.parametrize("wall", WALLS, ids=str)
def test_application_that_executes_by_itself_goes_round_nothing(world: World, wall: Wall) -> None:
    """A listener to `do_execute` may take the dialect's place; the layer's is asked first."""
    with world.engine(wall) as engine:

        def execute(cursor: Any, statement: str, parameters: Any, _context: object) -> bool:
            cursor.execute(statement, parameters)
            return True

        event.listen(engine, "do_execute", execute)
        with engine.connect() as connection:
            for tenant, letter in ((A, "a"), (B, "b"), (A, "a")):
                set_tenant(connection, tenant)
                assert seen(connection) == names_of(letter)
                connection.commit()
        with bound(engine, B) as session:
            assert seen(session) == names_of("b")
            named = NAMES.where(TestSet.name.in_(bindparam("names", expanding=True)))
            found = session.scalars(named, {"names": [*names_of("a"), *names_of("b")]})
            assert set(found) == names_of("b")


@pytest.mark.parametrize("wall", [wall for wall in WALLS if wall.text_allowed], ids=str)
def test_what_an_application_does_at_begin_is_nobody_elses(world: World, wall: Wall) -> None:
    """What a listener executes before a transaction has begun finds its own tenant, or none."""
    with world.engine(wall) as engine:
        found: list[set[str]] = []

        def look(connection: Connection) -> None:
            found.append(set(connection.scalars(text("select name from test_sets"))))

        with engine.connect() as connection:
            set_tenant(connection, A)
            assert seen(connection) == names_of("a")
        event.listen(engine, "begin", look)
        for tenant, letter in ((B, "b"), (A, "a")):
            with bound(engine, tenant) as session:
                assert seen(session) == names_of(letter)
            assert found.pop() in (set(), names_of(letter))
        with engine.connect() as connection:
            assert connection.scalars(text("select name from test_sets")).all() == []
        assert found == [set()]


def test_orm_without_a_tenant_raises_before_anything_is_sent(engine: Engine) -> None:
    """No rows would be no answer; the Session can be bound, and asked again."""
    with Session(engine) as session:
        with pytest.raises(MissingTenantError, match="'test_sets' was queried without a tenant"):
            session.scalars(NAMES).all()
        set_tenant(session, A)
        assert seen(session) == names_of("a")


def test_without_the_begin_a_raw_cursor_finds_the_last_transactions_tenant(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the dialect tells at begin is what keeps a Connection's next transaction nobody's."""

    def next_transaction(engine: Engine) -> set[str]:
        with engine.connect() as connection:
            with Session(connection) as session:
                set_tenant(session, A)
                assert seen(session) == names_of("a")
                session.commit()
            connection.rollback()
            with connection.begin():
                return names_on_a_raw_cursor(connection)

    with world.engine(Wall("database", "session", "prefix")) as engine:
        assert next_transaction(engine) == set()
    with world.engine(Wall("database", "session", "prefix")) as engine:
        tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
        monkeypatch.setattr(tenancy, "on_begin", lambda _: None)
        assert next_transaction(engine) == names_of("a")


def test_without_the_connections_own_a_raw_cursor_finds_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Connection's tenant is there for whatever begins its next transaction, a raw cursor too."""

    def second_transaction(engine: Engine) -> set[str]:
        with engine.connect() as connection:
            set_tenant(connection, A)
            assert seen(connection) == names_of("a")
            connection.commit()
            with connection.begin():
                return names_on_a_raw_cursor(connection)

    wall = Wall("database", "transaction", "prefix")
    with world.engine(wall) as engine:
        assert second_transaction(engine) == names_of("a")
    with world.engine(wall) as engine:
        tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
        on_begin = tenancy.on_begin

        def forget(proxied: Any) -> None:
            proxied.info[TENANCY_OPTION].own = None
            on_begin(proxied)

        monkeypatch.setattr(tenancy, "on_begin", forget)
        assert second_transaction(engine) == set()


# Several users of one transaction, and savepoints in it: what the server goes back to


def check_savepoint_of_another(engine: Engine) -> None:
    """A savepoint that was set under A brings A back; B, who was told before it, sees its own."""
    with engine.connect() as connection, connection.begin():
        assert turn(connection, B) == names_of("b")
        assert turn(connection, A) == names_of("a")
        savepoint = connection.begin_nested()
        assert turn(connection, B) == names_of("b")
        savepoint.rollback()
        assert turn(connection, B) == names_of("b")


def check_savepoint_of_nobody(engine: Engine) -> None:
    """A savepoint that was released under A leaves A to no statement of nobody's."""
    with engine.connect() as connection:
        connection.execute(select(1))
        assert turn(connection, A, join_transaction_mode="create_savepoint") == names_of("a")
        savepoint = connection.begin_nested()
        assert names(connection) == set()
        savepoint.rollback()
        assert names(connection) == set()


def check_savepoint_in_text(engine: Engine) -> None:
    """A savepoint that SQL text sets and goes back to is no other one."""
    with engine.connect() as connection, connection.begin():
        assert turn(connection, A) == names_of("a")
        connection.execute(text("savepoint mine"))
        with Session(connection) as session:
            set_tenant(session, A)
            session.execute(text("savepoint mine"))
            session.commit()
        with Session(connection) as session:
            set_tenant(session, B)
            assert names(session) == names_of("b")
            session.execute(text("ROLLBACK WORK TO SAVEPOINT mine"))
            assert names(session) == names_of("b")
            session.commit()


CHECKS = [check_savepoint_of_another, check_savepoint_of_nobody, check_savepoint_in_text]
SYNCHRONOUS = [
    wall
    for wall in (*WALLS, *DRIVER_WALLS)
    if wall.text_allowed and wall.driver not in ASYNCHRONOUS
]


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("wall", SYNCHRONOUS, ids=str)
def test_going_back_to_a_savepoint_brings_no_other_tenant(
    world: World, wall: Wall, check: Callable[[Engine], None]
) -> None:
    """What the server holds after ROLLBACK TO is not known where it was told several tenants."""
    with world.engine(wall) as engine:
        check(engine)


@pytest.mark.parametrize(
    ("check", "part"),
    [
        (check_savepoint_of_another, "UNKNOWN"),
        (check_savepoint_of_nobody, "UNKNOWN"),
        (check_savepoint_in_text, "_ROLLS_BACK"),
    ],
)
def test_without_the_doubt_a_savepoint_brings_another_tenant(
    world: World, monkeypatch: pytest.MonkeyPatch, check: Callable[[Engine], None], part: str
) -> None:
    """To trust what was told at the beginning, or last, is what a savepoint undoes."""
    # What goes round SQLAlchemy is not noticed at all: there it is said again at each statement.
    monkeypatch.setattr(ways.Prefixed, "repeat", lambda *_: None)
    with world.engine(Wall("database", "transaction", "prefix")) as engine:
        if part == "UNKNOWN":
            layer: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
            monkeypatch.setattr(layer, "on_rollback_to_savepoint", lambda _: None)
        else:
            monkeypatch.setattr(tenancy, part, re.compile("(?!)"))
        with pytest.raises(AssertionError):
            check(engine)


# Listeners of the application's that come first


def execute_first(cursor: Any, statement: str, parameters: Any, _context: object) -> bool:
    """Execute in the dialect's place."""
    cursor.execute(statement, parameters or None)
    return True


@pytest.mark.parametrize("wall", SYNCHRONOUS[:1] + SYNCHRONOUS[-1:], ids=str)
def test_listener_that_was_there_before_the_layer_goes_round_nothing(
    world: World, wall: Wall
) -> None:
    """The layer is told of a statement before any listener, so that none can execute it first."""
    engine = create_engine(url_of(wall.driver, world.walled.app_url))
    event.listen(engine, "do_execute", execute_first)
    protect_engine(engine, mode="database")
    try:
        with engine.connect() as connection, connection.begin():
            first, second = Session(connection), Session(connection)
            set_tenant(first, A)
            assert names(first) == names_of("a")
            set_tenant(second, B)
            for _ in range(2):
                with pytest.raises(TenantSwitchError):
                    names(second)
        with Session(engine) as session, pytest.raises(MissingTenantError):
            session.scalars(NAMES).all()
        with engine.connect() as connection:
            assert turn(connection, A, join_transaction_mode="rollback_only") == names_of("a")
            assert names(connection) == set()
    finally:
        engine.dispose()


def test_listener_before_a_statement_finds_its_tenant(world: World) -> None:
    """What an application does before a statement is for the statement's tenant, or nobody."""
    with world.engine(Wall("database", "session", "prefix")) as engine:
        found: list[set[str]] = []

        def look(connection: Connection, *_: Any) -> None:
            found.append(names_on_a_raw_cursor(connection))

        with engine.connect() as connection, connection.begin():
            assert turn(connection, A, join_transaction_mode="rollback_only") == names_of("a")
            event.listen(engine, "before_cursor_execute", look)
            connection.execute(select(1))
        assert found == [set()]


def test_connection_that_was_replaced_is_its_tenants_again(world: World) -> None:
    """What was bound to a Connection is told to the physical one that replaces another."""
    wall = Wall("database", "transaction", "prefix")
    with world.engine(wall) as engine, engine.connect() as connection:
        set_tenant(connection, A)
        assert names(connection) == names_of("a")
        connection.commit()
        connection.invalidate()
        assert names(connection) == names_of("a")
        connection.commit()
        with connection.begin():
            assert names_on_a_raw_cursor(connection) == names_of("a")

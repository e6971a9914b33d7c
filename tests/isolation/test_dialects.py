"""What SQLAlchemy's dialect tells the layer: nothing is dispatched for it, nor goes round it."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, bindparam, create_engine, event, select, text
from sqlalchemy.orm import Session
from tests.fixtures.drivers import ASYNCHRONOUS
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
from tenantry import MissingTenantError, set_tenant
from tenantry.database import TENANCY_OPTION, Tenancy

QUICK = [
    wall
    for wall in (*WALLS, *DRIVER_WALLS)
    if wall.mode == "database" and wall.context != "separate" and wall.driver not in ASYNCHRONOUS
]
NAMES = select(TestSet.name)


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
    # 33 to 53; with listeners to the Connection's events there would be sixty more.
    assert own - others < 60


def calls(work: Callable[[], None]) -> int:
    """Return how many functions of Python's are called, when everything was cached."""
    count = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    for _ in range(3):
        work()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


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
                cursor = connection.connection.cursor()
                cursor.execute("select name from test_sets")
                return {name for (name,) in cursor.fetchall()}

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
                cursor = connection.connection.cursor()
                cursor.execute("select name from test_sets")
                return {name for (name,) in cursor.fetchall()}

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

"""What one tenant leaves on a connection of psycopg 3 or asyncpg, the next one does not find."""

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import psycopg
import pytest
from bench.wire import Wire
from sqlalchemy import Engine, event, select, text
from tests.fixtures.drivers import Raw
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    DRIVER_WALLS,
    A,
    B,
    Wall,
    World,
    bound,
    cursor_of,
    names_of,
    new_world,
    seen,
)

from assay.models import TestSet
from tenantry import set_tenant
from tenantry.testing import Server

PSYCOPG = [wall for wall in DRIVER_WALLS if wall.driver == "psycopg"]
PSYCOPGS = [wall for wall in DRIVER_WALLS if wall.driver != "asyncpg"]
ASYNCPG = [wall for wall in DRIVER_WALLS if wall.driver == "asyncpg"]


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows of this module, in a database where the application may make tables."""
    with new_world(tenantry_server, tenantry_template) as world:
        with cursor_of(world.walled.owner_url) as cursor:
            cursor.execute(f'grant temporary on database "{world.walled.name}" to tenantry_login')
        yield world


@pytest.fixture(params=DRIVER_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each driver in turn."""
    wall: Wall = request.param
    return wall


def used(engine: Engine) -> None:
    """Use the connection once: after its first checkout it is cleared, whatever was done in it."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")


LEFTOVERS = {
    "temporary table": (
        "create temporary table kept as select name from test_sets",
        "select count(*) from pg_class where relname = 'kept'",
    ),
    "cursor with hold": (
        "declare kept cursor with hold for select name from test_sets",
        "select count(*) from pg_cursors where is_holdable",
    ),
    "advisory lock": (
        "select pg_advisory_lock(42)",
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ),
    "subscription": ("listen kept", "select count(*) from pg_listening_channels()"),
    "prepared statement": (
        "prepare \"all\" as select 'a secret'",
        "select count(*) from pg_prepared_statements where from_sql",
    ),
}


def check_left_past_sqlalchemy(engine: Engine, leave: str, count: str) -> None:
    """Leave something behind through the driver's own connection, and look for it as the next."""
    used(engine)
    with contextlib.closing(engine.raw_connection()) as pooled:
        raw = Raw(pooled)
        raw.in_block(
            lambda: raw.column(leave) if leave.startswith("select") else raw.execute(leave)
        )
        pooled.commit()
        assert raw.column(count) == [1]
        pooled.commit()
    with bound(engine, B) as session:
        assert session.scalar(text(count)) == 0


@pytest.mark.parametrize(("leave", "count"), LEFTOVERS.values(), ids=LEFTOVERS)
def test_nothing_that_was_left_past_sqlalchemy_is_found(
    engine: Engine, leave: str, count: str
) -> None:
    """What the driver itself was made to execute is seen, and cleared away."""
    check_left_past_sqlalchemy(engine, leave, count)


def check_left_by_text(engine: Engine, leave: str, count: str) -> None:
    """Leave something behind with a statement of SQLAlchemy's, twice, and look for it."""
    used(engine)
    for _ in range(2):
        with bound(engine, A) as session:
            session.execute(text(leave))
            session.commit()
        with bound(engine, B) as session:
            assert session.scalar(text(count)) == 0


@pytest.mark.parametrize(
    ("leave", "count"),
    [pair for name, pair in LEFTOVERS.items() if name != "temporary table"],
    ids=[name for name in LEFTOVERS if name != "temporary table"],
)
def test_nothing_that_was_left_by_text_is_found(engine: Engine, leave: str, count: str) -> None:
    """A statement that the driver has prepared is seen when it is executed again."""
    check_left_by_text(engine, leave, count)


def check_autocommit(engine: Engine) -> None:
    """Leave the driver in autocommit, in mid-use and on a raw connection, and work as the next."""
    used(engine)
    for tenant, letter in ((A, "a"), (B, "b")):
        with contextlib.closing(engine.raw_connection()) as pooled:
            Raw(pooled).adapted.autocommit = True
        with bound(engine, tenant) as session:
            assert set(session.scalars(select(TestSet.name))) == names_of(letter)


@pytest.mark.parametrize("wall", [*DATABASE_WALLS[:2], *DRIVER_WALLS], ids=str)
def test_autocommit_that_was_left_on_is_not_the_next_users(engine: Engine) -> None:
    """A connection that was left in the driver's autocommit is replaced, not handed on."""
    check_autocommit(engine)


def check_cached_statement(engine: Engine) -> None:
    """Execute a statement past SQLAlchemy that was prepared in an earlier checkout."""
    used(engine)
    lock = "select pg_advisory_lock(42)"
    for _ in range(3):
        with contextlib.closing(engine.raw_connection()) as pooled:
            cursor = pooled.cursor()
            cursor.execute(lock)
            cursor.close()
            pooled.commit()
        with bound(engine, B) as session:
            assert session.scalar(text(LEFTOVERS["advisory lock"][1])) == 0


def test_statement_that_was_prepared_earlier_is_seen(engine: Engine) -> None:
    """What SQLAlchemy's own cursor has in its cache goes round nothing."""
    check_cached_statement(engine)


def check_kept(engine: Engine) -> None:
    """Have the driver prepare a statement, the connection cleared, and it executed again."""
    statement = select(TestSet.name).where(TestSet.name != "nothing")
    count = "select count(*) from pg_prepared_statements where not from_sql"
    used(engine)
    with bound(engine, A) as session:
        for _ in range(7):
            session.scalars(statement).all()
        session.execute(text("select pg_advisory_lock(42)"))
        before = session.scalar(text(count))
        assert before
        session.commit()
    with bound(engine, B) as session:
        assert set(session.scalars(statement)) == names_of("b")
        assert (session.scalar(text(count)) or 0) >= before


def test_what_the_driver_prepared_is_kept(engine: Engine) -> None:
    """Clearing a connection leaves the driver's own prepared statements to it."""
    check_kept(engine)


def check_foreign_cursor(engine: Engine) -> None:
    """Take a lock with a cursor that the connection has not made."""
    used(engine)
    lock, count = LEFTOVERS["advisory lock"]

    async def execute(driver: Any) -> None:
        await psycopg.AsyncCursor(driver).execute(lock)

    with contextlib.closing(engine.raw_connection()) as pooled:
        raw = Raw(pooled)
        if raw.asynchronous:
            raw.awaited(execute)
        else:
            psycopg.Cursor(raw.driver).execute(lock)
        pooled.commit()
    with bound(engine, B) as session:
        assert session.scalar(text(count)) == 0


@pytest.mark.parametrize("wall", PSYCOPGS, ids=str)
def test_cursor_that_the_connection_has_not_made_is_seen(engine: Engine) -> None:
    """Whatever a cursor is an instance of, what it leaves is cleared away."""
    check_foreign_cursor(engine)


def check_block_after_the_end(engine: Engine) -> None:
    """Begin a block of the driver's own where a transaction of A's was committed."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        raw = Raw(connection.connection)
        assert seen(connection) == names_of("a")
        connection.commit()
        assert raw.in_block(raw.names) == set()


def test_block_after_the_end_is_nobodys(engine: Engine) -> None:
    """A transaction that the driver begins by itself, after A's, is not A's."""
    check_block_after_the_end(engine)


def test_nothing_is_sent_where_nothing_was_left(world: World, wall: Wall) -> None:
    """A return to the pool waits for nothing, with pre-ping, savepoints and streams as well."""
    stream = select(TestSet.name).execution_options(stream_results=True)
    with Wire(world.walled.app_url) as wire:
        elsewhere = World(cast("Any", SimpleNamespace(app_url=wire.url)), world.open)
        with elsewhere.engine(wall, pool_pre_ping=True) as engine:
            used(engine)
            for _ in range(2):
                session = bound(engine, A)
                with session.begin_nested():
                    session.add(TestSet(name="a new one"))
                    session.flush()
                assert set(session.scalars(stream)) == names_of("a") | {"a new one"}
                session.rollback()
                session.connection()
                wire.clear()
                session.close()
                assert wire.trips == 0, wire.queries


def check_callbacks(engine: Engine) -> None:
    """Have A asked to be told of messages and queries, and make some as B."""
    told: list[str] = []
    used(engine)
    with bound(engine, A) as session:
        raw = Raw(session.connection().connection)
        if raw.is_asyncpg:
            raw.driver.add_log_listener(lambda _, message: told.append(str(message)))
            raw.driver.add_query_logger(lambda record: told.append(record.query))
            raw.awaited(lambda driver: driver.add_listener("kept", lambda *a: told.append(str(a))))
        else:
            raw.driver.add_notice_handler(lambda notice: told.append(str(notice)))
            raw.driver.add_notify_handler(lambda notify: told.append(str(notify)))
            raw.execute("listen kept")
        session.commit()
    told.clear()
    with bound(engine, B) as session:
        session.execute(text("do $$ begin raise warning 'of B'; end $$"))
        raw = Raw(session.connection().connection)
        raw.execute("listen kept")
        raw.execute("notify kept, 'of B'")
        session.commit()
        assert seen(session) == names_of("b")
    assert [text for text in told if "of B" in text or "test_sets" in text] == []


def test_messages_and_queries_are_told_to_nobody_else(engine: Engine) -> None:
    """Callbacks that one user of a connection leaves are not called for the next one."""
    check_callbacks(engine)


def test_callbacks_of_the_application_stay(world: World, wall: Wall) -> None:
    """What was set up when the connection was made, before anybody used it, is kept."""
    told: list[str] = []
    with world.engine(wall) as engine:

        @event.listens_for(engine, "connect")
        def connect(adapted: Any, _record: object) -> None:
            driver = getattr(adapted, "driver_connection", adapted)
            if hasattr(driver, "add_query_logger"):
                driver.add_query_logger(lambda record: told.append(record.query))
            else:
                driver.add_notice_handler(lambda notice: told.append(notice.message_primary))

        used(engine)
        with bound(engine, B) as session:
            told.clear()
            raw = Raw(session.connection().connection)
            raw.execute("do $$ begin raise warning 'of B'; end $$")
            session.execute(select(1))
        assert [message for message in told if "of B" in message]


def check_setting(engine: Engine) -> None:
    """Set the tenant for the session, past SQLAlchemy, and look at it as the next one does."""
    setting = "app.current_organization"
    used(engine)
    for tenant, left in ((A, str(A)), (None, "")):
        with contextlib.closing(engine.raw_connection()) as pooled:
            raw = Raw(pooled)
            if not raw.is_asyncpg:
                raw.adapted.set_autocommit(True)
            if tenant is not None:
                raw.execute(f"select set_config('{setting}', '{tenant}', false)")
            assert raw.column(f"select current_setting('{setting}')") == [left]
            if not raw.is_asyncpg:
                raw.adapted.set_autocommit(False)


def test_setting_of_the_session_is_cleared(engine: Engine) -> None:
    """A tenant that was set for the session is not there outside of the next one's transactions."""
    check_setting(engine)


def check_notifications(world: World, engine: Engine) -> None:
    """Have A sent something that arrives when the connection is cleared, and look for it as B."""
    used(engine)
    with engine.connect() as connection:
        set_tenant(connection, A)
        connection.execute(text("listen kept"))
        connection.commit()
        with cursor_of(world.walled.app_url) as cursor:
            cursor.execute("notify kept, 'of A'")
    with bound(engine, B) as session:
        driver = Raw(session.connection().connection).driver
        kept = driver.notifies
        assert [str(each) for each in (kept(timeout=0.05) if callable(kept) else kept)] == []


@pytest.mark.parametrize("wall", [DATABASE_WALLS[0], *PSYCOPG], ids=str)
def test_notifications_are_not_kept_for_the_next(world: World, engine: Engine) -> None:
    """What was sent to a subscription of A's before it was cleared is not delivered to B."""
    check_notifications(world, engine)


@pytest.mark.parametrize("wall", PSYCOPGS, ids=str)
def test_held_rows_are_not_kept(engine: Engine) -> None:
    """A server-side cursor of the driver's that outlives its transaction is closed."""
    count = LEFTOVERS["cursor with hold"][1]
    used(engine)

    async def hold(driver: Any) -> None:
        await driver.cursor("held", withhold=True).execute("select name from test_sets")

    with engine.connect() as connection:
        set_tenant(connection, A)
        raw = Raw(connection.connection)
        if raw.asynchronous:
            connection.begin()
            raw.awaited(hold)
        else:
            raw.driver.cursor("held", withhold=True).execute("select name from test_sets")
        raw.adapted.commit()
        assert connection.scalar(text(count)) == 1
    with bound(engine, B) as session:
        assert session.scalar(text(count)) == 0


@pytest.mark.parametrize("wall", PSYCOPGS, ids=str)
def test_connection_left_in_pipeline_mode_is_given_up(engine: Engine) -> None:
    """A pipeline that nobody left is not what the next user's statements go into."""
    used(engine)
    with bound(engine, A) as session:
        raw = Raw(session.connection().connection)
        before = raw.driver
        pipeline = raw.driver.pipeline()
        if raw.asynchronous:
            raw.awaited(lambda _: pipeline.__aenter__())
            raw.awaited(lambda driver: driver.execute("select name from test_sets"))
        else:
            pipeline.__enter__()
            raw.driver.execute("select name from test_sets")
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
        assert Raw(session.connection().connection).driver is not before


def test_block_that_nobody_left_is_not_the_next_users(engine: Engine) -> None:
    """A transaction of the driver's own that was left open is rolled back, or given up with it."""
    used(engine)
    with contextlib.closing(engine.raw_connection()) as pooled:
        raw = Raw(pooled)
        block = raw.driver.transaction()
        if raw.is_asyncpg:
            raw.awaited(lambda _: block.start())
        elif raw.asynchronous:
            raw.awaited(lambda _: block.__aenter__())
        else:
            block.__enter__()
        raw.column(f"select set_config('app.current_organization', '{A}', true)")
        assert raw.names() == names_of("a")
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
        session.commit()
        assert seen(session) == names_of("b")
    with engine.connect() as connection:
        assert seen(connection) == set()

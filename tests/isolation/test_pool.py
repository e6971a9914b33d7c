"""What one tenant leaves on a pooled connection, the next one does not find."""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
import psycopg2.extensions
import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool, SingletonThreadPool, StaticPool
from tests.fixtures import session_checks
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    DRIVER_WALLS,
    WALLS,
    A,
    B,
    C,
    Wall,
    World,
    bound,
    cursor_of,
    names_of,
    new_world,
    seen,
)

from assay.models import TestSet
from tenantry import (
    ConfigurationError,
    UnfilterableStatementError,
    create_tenant_engine,
    set_tenant,
)
from tenantry.connections import TenantConnection
from tenantry.cursors import ContextCursor
from tenantry.testing import Server


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows of this module, in a database where the application may make tables."""
    with new_world(tenantry_server, tenantry_template) as world:
        with cursor_of(world.walled.owner_url) as cursor:
            cursor.execute(f'grant temporary on database "{world.walled.name}" to tenantry_login')
        yield world


@pytest.fixture(params=(*DATABASE_WALLS, *DRIVER_WALLS), ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each scope in turn, with the database as the wall."""
    wall: Wall = request.param
    return wall


def in_turn(engine: Engine) -> None:
    """Let three tenants use the engine by turns, each seeing its own rows."""
    for letter, tenant in (("a", A), ("b", B), ("c", C)):
        with bound(engine, tenant) as session:
            assert seen(session) == names_of(letter)
            session.commit()
            assert seen(session) == names_of(letter)
    with engine.connect() as connection:
        assert seen(connection) == set()


def test_raw_connection_sees_no_tenant(engine: Engine) -> None:
    """A raw connection, in whose transactions the layer has no part, is nobody's."""
    session_checks.check_raw_connection_sees_nothing(engine)


def test_tampering_is_not_inherited(engine: Engine) -> None:
    """A setting left behind with `set_config` is overwritten by the next transaction."""
    session_checks.check_tampering_is_not_inherited(engine)


@pytest.mark.parametrize("wall", [DATABASE_WALLS[0]], ids=str)
def test_raw_tampering_is_not_inherited(engine: Engine) -> None:
    """What a raw connection set is gone when the next raw connection comes."""
    check_raw_tampering(engine)


@pytest.mark.parametrize("wall", [DATABASE_WALLS[1]], ids=str)
def test_raw_tampering_is_not_inherited_with_transaction_scope(engine: Engine) -> None:
    """The same holds for a direct connection on which the layer sets nothing for the session."""
    check_raw_tampering(engine)


def check_raw_tampering(engine: Engine) -> None:
    """Leave A's setting on a raw connection, and look at it through the next one."""
    with contextlib.closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.execute("select set_config('app.current_organization', %s, false)", (str(A),))
        raw.commit()
    with contextlib.closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.execute("select name from test_sets")
        assert cursor.fetchall() == []


LEFTOVERS = {
    "temporary table": (
        ["create temporary table kept as select name from test_sets"],
        "select count(*) from pg_class where relname = 'kept'",
    ),
    "cursor with hold": (
        ["declare kept cursor with hold for select name from test_sets"],
        "select count(*) from pg_cursors where is_holdable",
    ),
    "advisory lock": (
        ["select pg_advisory_lock(42)"],
        "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
    ),
    "row security switched off": (
        ["set row_security = off"],
        "select (current_setting('row_security') = 'off')::int",
    ),
    "subscription": (["listen kept"], "select count(*) from pg_listening_channels()"),
}
UNCLEARED = {
    "prepared statement": (
        ["prepare kept as select 'a secret'"],
        "select count(*) from pg_prepared_statements",
    ),
}


def check_leftover(engine: Engine, leave: list[str], count: str) -> None:
    """Leave something behind as A, and count what of it the next user of the connection finds."""
    with bound(engine, A) as session:
        # A connection is cleared after its first checkout, whatever was done in it.
        assert seen(session) == names_of("a")
    with engine.connect() as connection:
        set_tenant(connection, A)
        for statement in leave:
            connection.execute(text(statement))
        connection.commit()
        assert connection.scalar(text(count))
        connection.commit()
    with engine.connect() as connection:
        set_tenant(connection, B)
        assert not connection.scalar(text(count))


@pytest.mark.parametrize("wall", [DATABASE_WALLS[0]], ids=str)
@pytest.mark.parametrize(("leave", "count"), LEFTOVERS.values(), ids=LEFTOVERS)
def test_nothing_is_left_behind(engine: Engine, leave: list[str], count: str) -> None:
    """What outlives a transaction does not outlive the checkout."""
    check_leftover(engine, leave, count)


@pytest.mark.parametrize("wall", [DATABASE_WALLS[0]], ids=str)
@pytest.mark.parametrize(("leave", "count"), UNCLEARED.values(), ids=UNCLEARED)
def test_no_state_of_the_session_is_left_behind(
    engine: Engine, leave: list[str], count: str
) -> None:
    """Prepared statements, which can hold data, do not outlive the checkout."""
    check_leftover(engine, leave, count)


@pytest.mark.parametrize("wall", [DATABASE_WALLS[1], *DRIVER_WALLS], ids=str)
@pytest.mark.parametrize(("leave", "count"), LEFTOVERS.values(), ids=LEFTOVERS)
def test_nothing_is_left_behind_with_transaction_scope(
    engine: Engine, leave: list[str], count: str
) -> None:
    """On a direct connection the same holds where the scope is the transaction."""
    check_leftover(engine, leave, count)


def check_held_rows(engine: Engine) -> None:
    """Have the driver hold A's rows past their transaction, and ask for them as B."""
    for tenant, letter in ((A, "a"), (A, "a"), (B, "b")):
        with bound(engine, tenant) as session:
            assert seen(session) == names_of(letter)
            driver: Any = session.connection().connection.dbapi_connection
            if tenant == B:
                with pytest.raises(psycopg2.errors.InvalidCursorName):
                    driver.cursor("held").fetchall()
            else:
                driver.cursor("held", withhold=True).execute("select name from test_sets")
            session.commit()


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_rows_that_the_driver_holds_do_not_outlive_the_checkout(
    engine: Engine, wall: Wall, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named cursor that outlives its transaction is closed, which its query does not tell."""
    check_held_rows(engine)
    monkeypatch.setattr(ContextCursor, "withhold", False)
    with (
        world.engine(wall) as unclosed,
        pytest.raises((pytest.fail.Exception, psycopg2.errors.DuplicateCursor)),
    ):
        check_held_rows(unclosed)


def test_open_transaction_does_not_go_back_to_the_pool(engine: Engine) -> None:
    """Whoever leaves a transaction open loses its work, and the next one starts anew."""
    connection = engine.connect()
    set_tenant(connection, A)
    connection.execute(text("insert into test_sets (name) values ('a-lost')"))
    connection.close()
    raw = engine.raw_connection()
    cursor = raw.cursor()
    cursor.execute(f"select set_config('app.current_organization', '{A}', true)")
    raw.close()
    with contextlib.closing(engine.raw_connection()) as raw:
        cursor = raw.cursor()
        cursor.execute("select name from test_sets")
        assert cursor.fetchall() == []
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")


def check_transaction_begun_by_hand(engine: Engine) -> None:
    """Begin in AUTOCOMMIT what the driver does not know of, and roll it back as the next user."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.execute(text("begin"))
    with engine.connect() as connection:
        set_tenant(connection, B)
        names = connection.execute(text("rollback; select name from test_sets")).scalars()
        assert set(names) <= names_of("b")


@pytest.mark.parametrize("wall", [w for w in DATABASE_WALLS if w.scope == "session"], ids=str)
def test_transaction_begun_by_hand_does_not_go_back_to_the_pool(
    engine: Engine, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A `begin` in AUTOCOMMIT is rolled back, so that no rollback of B's brings A back."""
    check_transaction_begun_by_hand(engine)
    idle = psycopg2.extensions.TRANSACTION_STATUS_IDLE
    with world.engine(Wall("database", "session", "prefix")) as unended:
        monkeypatch.setattr(TenantConnection, "get_transaction_status", lambda _: idle)
        with pytest.raises(AssertionError):
            check_transaction_begun_by_hand(unended)
        monkeypatch.undo()


def test_aborted_transaction_does_not_go_back_to_the_pool(engine: Engine) -> None:
    """A connection that comes back in a failed transaction serves the next tenant as any other."""
    connection = engine.connect()
    set_tenant(connection, A)
    with pytest.raises(DBAPIError):
        connection.execute(text("select 1 / 0"))
    connection.close()
    in_turn(engine)


def test_half_read_stream_does_not_go_back_to_the_pool(engine: Engine) -> None:
    """A server-side cursor that was not read to its end shows the next tenant nothing."""
    statement = select(TestSet.name).execution_options(stream_results=True, yield_per=1)
    session = bound(engine, A)
    rows = session.scalars(statement)
    assert next(rows) in names_of("a")
    session.close()
    in_turn(engine)
    with engine.connect() as connection:
        assert connection.scalar(text("select count(*) from pg_cursors where is_holdable")) == 0


def test_invalidated_connection_is_replaced_for_the_same_tenant(engine: Engine) -> None:
    """After `invalidate()` the next transaction has a new connection and the same tenant."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        before = backend(connection)
        connection.invalidate()
        connection.rollback()
        assert seen(connection) == names_of("a")
        assert backend(connection) != before
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
        session.invalidate()
    in_turn(engine)


def test_disposed_engine_starts_anew(engine: Engine) -> None:
    """`dispose()` forgets the connections, not the guarantee."""
    in_turn(engine)
    engine.dispose()
    in_turn(engine)
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
        engine.dispose(close=False)
        assert seen(session) == names_of("a")
    in_turn(engine)


@pytest.mark.parametrize(
    "options",
    [
        {"poolclass": NullPool},
        {"pool_pre_ping": True},
        {"pool_use_lifo": True, "pool_size": 2},
        {"pool_recycle": 0},
        {"pool_reset_on_return": None},
        {"echo_pool": False, "isolation_level": "REPEATABLE READ"},
    ],
    ids=lambda options: next(iter(options)) + str(next(iter(options.values())))[:20],
)
def test_every_pool_keeps_tenants_apart(
    world: World, wall: Wall, options: dict[str, object]
) -> None:
    """Whichever pool the engine has, each Session sees its own tenant's rows."""
    with world.engine(wall, **options) as engine:
        in_turn(engine)
        in_turn(engine)


@pytest.mark.parametrize("wall", [w for w in WALLS if w.mode == "filters"], ids=str)
def test_pre_ping_works_where_filters_are_the_only_wall(world: World, wall: Wall) -> None:
    """The pool's own question is let through, a raw cursor's is not."""
    with world.engine(wall, pool_pre_ping=True) as engine:
        in_turn(engine)
        with contextlib.closing(engine.raw_connection()) as raw:
            cursor = raw.cursor()
            with pytest.raises(UnfilterableStatementError):
                cursor.execute("select name from test_sets")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"poolclass": StaticPool}, "StaticPool"),
        ({"poolclass": SingletonThreadPool}, "SingletonThreadPool"),
        ({"pool_reset_on_return": "commit"}, "pool_reset_on_return"),
    ],
)
def test_pool_that_mixes_users_is_refused(
    world: World, options: dict[str, Any], named: str
) -> None:
    """A pool that hands one connection out twice, or commits leftovers, is refused at once."""
    with pytest.raises(ConfigurationError, match=named):
        create_tenant_engine(world.walled.app_url, **options)


def test_lost_connection_is_noticed_by_pre_ping(world: World, wall: Wall) -> None:
    """With `pool_pre_ping` the tenant after a lost connection notices nothing of it."""
    with world.engine(wall, pool_pre_ping=True) as engine:
        with bound(engine, A) as session:
            assert seen(session) == names_of("a")
            driver = session.connection().connection.dbapi_connection
        assert driver is not None
        driver.close()
        in_turn(engine)


def test_failed_reset_discards_the_connection(engine: Engine) -> None:
    """A connection that cannot be cleared is closed instead of being handed out again."""
    in_turn(engine)
    raw = engine.raw_connection()
    before = raw.dbapi_connection
    assert before is not None
    before.close()
    raw.close()
    in_turn(engine)
    with contextlib.closing(engine.raw_connection()) as raw:
        assert raw.dbapi_connection is not before


def backend(connection: Connection) -> int:
    """Return the process that serves the connection."""
    pid: int = connection.scalar(text("select pg_backend_pid()"))
    return pid

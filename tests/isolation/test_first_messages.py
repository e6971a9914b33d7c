"""Whatever a transaction begins with, however it is sent, the tenant is there before it."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any, Final

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2 import sql
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from tests.fixtures.messages import QUERY, after_a, direct, fetched, names
from tests.fixtures.worlds import (
    DATABASE_WALLS,
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

from tenantry import ConfigurationError, clear_tenant, set_tenant
from tenantry.cursors import ContextCursor
from tenantry.testing import Server
from tenantry.ways import Prefixed

Attack = Callable[[Any], set[str]]


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows of this module, and functions that read them."""
    with new_world(tenantry_server, tenantry_template) as world:
        with cursor_of(world.walled.owner_url, "tenantry_owner") as cursor:
            cursor.execute(
                "create function names() returns setof text language sql stable as "
                "'select name::text from public.test_sets'; grant execute on function names() to "
                "public"
            )
        yield world


@pytest.fixture(params=DATABASE_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each way in each scope."""
    wall: Wall = request.param
    return wall


def copied(driver: Any, copy: Callable[[Any, io.StringIO], object]) -> set[str]:
    """Return what was copied out."""
    out = io.StringIO()
    with driver.cursor() as cursor:
        copy(cursor, out)
    return set(out.getvalue().split())


class Inherited(psycopg2.extensions.cursor):
    """A cursor class of an application's, that calls what it extends."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002
        """Execute twice: a comment of its own first."""
        super().execute("select 'mine'")
        super().execute(query, vars)


class Renamed(psycopg2.extensions.cursor):
    """A cursor class that overrides nothing."""


def returned(cursor: Any) -> set[str]:
    """Read by `insert … returning`, as execute_values sends it."""
    rows = psycopg2.extras.execute_values(
        cursor,
        "with new (n) as (values %s) select t.name from test_sets t, new",
        [("x",)],
        fetch=True,
    )
    return names(rows)


def scrolled(driver: Any) -> set[str]:
    """Read by a scrollable named cursor, forwards and back."""
    cursor = driver.cursor("scrolled", scrollable=True)
    cursor.execute(QUERY)
    cursor.scroll(1)
    cursor.scroll(0, mode="absolute")
    rows = names(cursor)
    cursor.close()
    return rows


def with_hold(driver: Any) -> set[str]:
    """Read by a cursor that is held."""
    cursor = driver.cursor("held", withhold=True)
    rows = fetched(cursor)
    cursor.close()
    return rows


def batched(driver: Any) -> set[str]:
    """Have several commands sent in one message, the last of which reads."""
    cursor = driver.cursor()
    psycopg2.extras.execute_batch(cursor, "select name from test_sets where %s", [(True,), (True,)])
    return names(cursor.fetchall())


def called(driver: Any) -> set[str]:
    """Read by a function."""
    cursor = driver.cursor()
    cursor.callproc("names")
    return names(cursor.fetchall())


def counted_many(driver: Any) -> set[str]:
    """Touch rows by executemany, and tell the ones that were."""
    cursor = driver.cursor()
    cursor.executemany("update test_sets set description = %s", [("x",)])
    return names_of("b") if cursor.rowcount == 2 else {str(cursor.rowcount)}


def within(driver: Any) -> set[str]:
    """Read in the driver's own block, which commits, and in another after it."""
    with driver, driver.cursor() as cursor:
        return fetched(cursor)


ATTACKS: Final[dict[str, Attack]] = {
    "plain": lambda d: fetched(d.cursor()),
    "with parameters": lambda d: fetched(d.cursor(), QUERY + " where name like %s", ("%",)),
    "with a percent sign": lambda d: fetched(d.cursor(), QUERY + " where name like '%'"),
    "with named parameters": lambda d: fetched(d.cursor(), QUERY + " where %(x)s", {"x": True}),
    "bytes": lambda d: fetched(d.cursor(), QUERY.encode()),
    "composed": lambda d: fetched(
        d.cursor(), sql.SQL("select name from {}").format(sql.Identifier("test_sets"))
    ),
    "in parentheses": lambda d: fetched(d.cursor(), f" ( ({QUERY}) union all {QUERY})"),
    "after a comment": lambda d: fetched(d.cursor(), f"/* mine */ {QUERY}"),
    "after a nested comment": lambda d: fetched(d.cursor(), f"/* a /* b */ c */ {QUERY}"),
    "after a line of comment": lambda d: fetched(d.cursor(), f"-- mine\n{QUERY}"),
    "of several commands": lambda d: fetched(d.cursor(), f"select 1; {QUERY}"),
    "after a command": lambda d: fetched(d.cursor(), f"set local work_mem = '8MB'; {QUERY}"),
    "after a savepoint": lambda d: fetched(d.cursor(), f"savepoint s; {QUERY}"),
    "after values": lambda d: fetched(d.cursor(), f"values (1); {QUERY}"),
    "table": lambda d: {row[1] for row in _table(d)},
    "prepared": lambda d: fetched(d.cursor(), f"prepare p as {QUERY}; execute p"),
    "declared": lambda d: fetched(d.cursor(), f"declare c cursor for {QUERY}; fetch all from c"),
    "dictionaries": lambda d: fetched(d.cursor(cursor_factory=psycopg2.extras.RealDictCursor)),
    "named tuples": lambda d: fetched(d.cursor(cursor_factory=psycopg2.extras.NamedTupleCursor)),
    "a factory by position": lambda d: fetched(d.cursor(None, psycopg2.extras.DictCursor)),
    "a class that inherits": lambda d: fetched(d.cursor(cursor_factory=Inherited)),
    "a class that overrides nothing": lambda d: fetched(d.cursor(cursor_factory=Renamed)),
    "named": lambda d: fetched(d.cursor("named")),
    "named, of a class": lambda d: fetched(
        d.cursor("named", cursor_factory=psycopg2.extras.RealDictCursor)
    ),
    "scrollable": scrolled,
    "with hold": with_hold,
    "execute_values": lambda d: returned(d.cursor()),
    "execute_batch": batched,
    "executemany": counted_many,
    "callproc": called,
    "copy_expert": lambda d: copied(
        d, lambda c, out: c.copy_expert(f"copy ({QUERY}) to stdout", out)
    ),
    "with connection": within,
}


def _table(driver: Any) -> list[Any]:
    cursor = driver.cursor()
    cursor.execute("table test_sets")
    columns = [column.name for column in cursor.description]
    return [(None, row[columns.index("name")]) for row in cursor.fetchall()]


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_first_message_runs_for_its_own_tenant(engine: Engine, attack: Attack) -> None:
    """Each kind of first message reads B's rows, on a connection that was A's, and on a new one."""
    with after_a(engine) as (connection, driver):
        assert attack(driver) == names_of("b")
        connection.rollback()
    with engine.connect() as connection:
        set_tenant(connection, B)
        connection.begin()
        assert attack(connection.connection.dbapi_connection) == names_of("b")


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_first_message_without_a_tenant_reads_nothing(engine: Engine, attack: Attack) -> None:
    """Each kind of first message reads nothing where nobody is bound, after A as well."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.commit()
        clear_tenant(connection)
        connection.begin()
        assert not attack(connection.connection.dbapi_connection) & (names_of("a") | names_of("b"))


def test_what_goes_round_the_cursors_finds_no_other_tenant(engine: Engine) -> None:
    """The driver's own cursor class reads B's rows or none, wherever the connection comes from."""
    with after_a(engine) as (connection, driver):
        assert direct(driver) in (set(), names_of("b"))
    with engine.connect() as connection:
        for tenant, letter, end in ((A, "a", "commit"), (B, "b", "rollback"), (A, "a", "rollback")):
            set_tenant(connection, tenant)
            connection.begin()
            driver = connection.connection.dbapi_connection
            assert direct(driver) in (set(), names_of(letter))
            assert seen(connection) in (set(), names_of(letter))
            getattr(connection, end)()
    for tenant, letter in ((A, "a"), (B, "b")):
        with bound(engine, tenant) as session:
            driver = session.connection().connection.dbapi_connection
            assert direct(driver) in (set(), names_of(letter))


def test_without_the_replacement_the_driver_reads_the_earlier_tenant(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That no context waits while the session holds another is what keeps such a cursor out."""
    monkeypatch.setattr("tenantry.tenancy.replace_session_tenant", lambda *_: None)
    monkeypatch.setattr("tenantry.ways.replace_session_tenant", lambda *_: None)
    with (
        world.engine(Wall("database", "session", "prefix")) as engine,
        after_a(engine) as (_, driver),
    ):
        assert direct(driver) == names_of("a")


class Old(psycopg2.extensions.cursor):
    """A cursor class that calls the driver's by its name."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002
        """Execute."""
        psycopg2.extensions.cursor.execute(self, query, vars)


def test_class_that_goes_round_is_told(engine: Engine, wall: Wall) -> None:
    """A cursor class that leaves the context behind reads no other tenant's rows, and is told."""
    with after_a(engine) as (_, driver), contextlib.ExitStack() as stack:
        if wall.context != "separate" and wall.scope == "transaction":
            stack.enter_context(pytest.raises(ConfigurationError, match=r"super\(\)\.execute"))
        with contextlib.suppress(ConfigurationError) if wall.scope == "session" else stack:
            assert fetched(driver.cursor(cursor_factory=Old)) == names_of("b")


def test_factory_that_is_no_class_is_refused(engine: Engine) -> None:
    """A function that makes cursors of its own gets nothing to make them of."""
    with (
        after_a(engine) as (_, driver),
        pytest.raises(ConfigurationError, match="subclass"),
    ):
        driver.cursor(cursor_factory=lambda *args: psycopg2.extensions.cursor(*args))


def test_cursors_that_outlive_a_transaction_read_for_the_next(engine: Engine) -> None:
    """A cursor made for A, or before anything, or interleaved with another, reads for B."""
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        early = driver.cursor()
        set_tenant(connection, A)
        connection.begin()
        assert fetched(early) == names_of("a")
        other = driver.cursor()
        connection.commit()
        set_tenant(connection, B)
        connection.begin()
        other.execute(QUERY)
        assert fetched(early) == names_of("b")
        assert names(other.fetchall()) == names_of("b")
        connection.rollback()
        clear_tenant(connection)
        connection.begin()
        assert fetched(other) == set()
        connection.rollback()
        assert fetched(early) == set()


# Mutations: ways that forget, or send what is another's.


def check_first_messages(engine: Engine) -> None:
    """Read with B bound after A, in two ways."""
    for attack in ("plain", "named", "copy_expert"):
        with after_a(engine) as (_, driver):
            assert ATTACKS[attack](driver) == names_of("b")


@pytest.mark.parametrize("wall", [w for w in DATABASE_WALLS if w.context != "separate"], ids=str)
def test_cursor_that_forgets_the_context_is_found(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the prefix a transaction runs for nobody: the tests can fail."""

    def forget(self: Any, _connection: Any, state: Any, query: Any, vars_: Any) -> None:
        state.pending = None
        psycopg2.extensions.cursor.execute(self, query, vars_)

    with world.engine(wall) as engine:
        check_first_messages(engine)
    monkeypatch.setattr(ContextCursor, "_execute_first", forget)
    with (
        world.engine(Wall("database", "transaction", wall.context)) as engine,
        pytest.raises(AssertionError),
    ):
        check_first_messages(engine)


@pytest.mark.parametrize("wall", [w for w in DATABASE_WALLS if w.context != "separate"], ids=str)
def test_way_that_sends_the_previous_tenant_is_found(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way that is one tenant behind lets B read A's rows: the tests can fail."""
    announce, behind = Prefixed.announce, [None]

    def announce_previous(self: Any, connection: Any, state: Any, tenant: Any) -> None:
        behind.append(tenant)
        announce(self, connection, state, behind[-2])

    monkeypatch.setattr(Prefixed, "announce", announce_previous)
    with world.engine(wall) as engine, pytest.raises(AssertionError):
        check_first_messages(engine)


def test_session_of_an_engine_with_cursors_of_a_class_sees_its_rows(
    world: World, wall: Wall
) -> None:
    """A cursor class given to the driver for all cursors carries the context as well."""
    options = {"connect_args": {"cursor_factory": Renamed}}
    with world.engine(wall, **options) as engine:
        for letter, tenant in (("a", A), ("b", B)):
            with bound(engine, tenant) as session:
                assert seen(session) == names_of(letter)
                driver: Any = session.connection().connection.dbapi_connection
                assert isinstance(driver.cursor(), Renamed)


def test_connections_of_a_class_of_ones_own_are_sent_the_tenant_separately(world: World) -> None:
    """Where the connection's class is the application's, nothing waits; asked to, it is refused."""
    own = {"connection_factory": type("Own", (psycopg2.extensions.connection,), {})}
    with world.engine(Wall("database", "session"), connect_args=own) as engine:
        for letter, tenant in (("a", A), ("b", B)):
            with bound(engine, tenant) as session:
                assert direct(session.connection().connection.dbapi_connection) == names_of(letter)
    for wall in (Wall("database", "session", "prefix"), Wall("database", "session", "begin")):
        with (
            world.engine(wall, connect_args=own) as engine,
            pytest.raises(ConfigurationError, match="connection_factory"),
            Session(engine) as session,
        ):
            session.connection()

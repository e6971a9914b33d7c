"""Behind PgBouncer in transaction mode, psycopg 3 and asyncpg carry each client's own tenant."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import URL, Engine, create_engine, select, text
from tests.conftest import PgBouncer
from tests.fixtures.drivers import Driver, Raw, engine_of, run
from tests.fixtures.worlds import DRIVER_WALLS, A, B, C, Wall, World, bound, names_of, seen

from assay.models import TestSet
from tenantry import protect_engine, set_tenant
from tenantry.database import connection_state

# As docs/performance.md has it.
CONNECT: dict[Driver, dict[str, Any]] = {
    "psycopg": {"prepare_threshold": None},
    "psycopg-async": {"prepare_threshold": None},
    "asyncpg": {
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__asyncpg_{uuid.uuid4()}__",
    },
}


@pytest.fixture(params=DRIVER_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each driver in turn."""
    wall: Wall = request.param
    return wall


@contextlib.contextmanager
def client(url: URL, wall: Wall) -> Iterator[Engine]:
    """Yield an engine with one connection to the pooler: a client of its own."""
    engine = protect_engine(
        engine_of(wall.driver, url, pool_size=1, max_overflow=0, connect_args=CONNECT[wall.driver]),
        mode="database",
    )
    try:
        yield engine
    finally:
        run(wall.driver, engine.dispose)


def test_clients_in_turn_see_their_own_rows(world: World, wall: Wall, pgbouncer: PgBouncer) -> None:
    """Two clients that share one server connection by turns see their own tenant's rows."""
    url = pgbouncer(world.walled.app_url, pool_size=1)
    pid = select(text("pg_backend_pid()"))
    with client(url, wall) as first, client(url, wall) as second:
        backends: set[Any] = set()
        with bound(first, A) as one, bound(second, B) as two:
            for end in ("commit", "rollback", "commit", "rollback"):
                for session, letter in ((one, "a"), (two, "b")):
                    for _ in range(3):
                        assert seen(session) == names_of(letter)
                    backends.add(session.scalar(pid))
                    getattr(session, end)()
        assert len(backends) == 1
        with second.connect() as connection:
            assert connection_state(connection).isolation.pooled
            assert seen(connection) == set()
        with contextlib.closing(second.raw_connection()) as pooled:
            assert Raw(pooled).names() == set()


def test_transactions_in_turn_on_one_connection(
    world: World, wall: Wall, pgbouncer: PgBouncer
) -> None:
    """Each transaction, savepoint and stream of one client is its own tenant's."""
    stream = select(TestSet.name).execution_options(stream_results=True, yield_per=1)
    url = pgbouncer(world.walled.app_url, pool_size=1)
    with client(url, wall) as engine, engine.connect() as connection:
        for letter, tenant in (("a", A), ("b", B), ("c", C), ("a", A)):
            set_tenant(connection, tenant)
            nested = connection.begin_nested()
            assert seen(connection) == names_of(letter)
            nested.rollback()
            assert set(connection.scalars(stream)) == names_of(letter)
            connection.commit()


def test_another_clients_session_setting_does_not_count(
    world: World, wall: Wall, pgbouncer: PgBouncer
) -> None:
    """What a careless client left set on the server connection is overwritten by each BEGIN."""
    url = pgbouncer(world.walled.app_url, pool_size=1)
    careless = create_engine(url)
    with client(url, wall) as engine:
        with careless.begin() as connection:
            leave = f"select set_config('app.current_organization', '{A}', false)"
            connection.execute(text(leave))
        with bound(engine, B) as session:
            assert seen(session) == names_of("b")
        with engine.connect() as connection:
            assert seen(connection) == set()
        with contextlib.closing(engine.raw_connection()) as pooled:
            raw = Raw(pooled)
            assert raw.in_block(raw.names) == set()
    careless.dispose()

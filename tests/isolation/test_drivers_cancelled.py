"""A transaction of asyncpg's that is cancelled, fails or does not begin misleads nobody."""

import asyncio
import contextlib
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from tests.fixtures.drivers import Raw
from tests.fixtures.worlds import DRIVER_WALLS, A, B, Wall, World, bound, names_of, seen

from tenantry import set_tenant
from tenantry.drivers import asyncpg as module
from tenantry.drivers.asyncpg import TenantConnection
from tenantry.drivers.begun import WithBegin


@pytest.fixture
def wall() -> Wall:
    """Return the driver that sends what cancels a command on a connection of its own."""
    return next(wall for wall in DRIVER_WALLS if wall.driver == "asyncpg")


async def cancel_first(driver: Any, command: str) -> None:
    """Send a command, and cancel it before its answer is read: the server has executed it."""
    task = asyncio.ensure_future(driver.execute(command))
    # One turn of the loop sends it; in the next one the task is cancelled.
    await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("command", ["begin", "select 1; begin"])
def test_cancelled_begin_is_nobodys(engine: Engine, command: str) -> None:
    """A BEGIN that is cancelled past SQLAlchemy does not hand its tenant on with the connection."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
    with bound(engine, A) as session:
        raw = Raw(session.connection().connection)
        raw.awaited(lambda driver: cancel_first(driver, command))
        cancelled = raw.driver
    with contextlib.closing(engine.raw_connection()) as pooled:
        assert pooled.driver_connection is not cancelled
        assert Raw(pooled).names() == set()
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")


def test_failed_begin_is_over(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Connection on which the context failed with its BEGIN is rolled back and used again."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        with monkeypatch.context() as patch:
            patch.setattr(WithBegin, "opening", lambda *_: "select 1/0")
            with pytest.raises(DBAPIError, match="zero"):
                connection.execute(select(1))
        connection.rollback()
        assert seen(connection) == names_of("a")


def test_without_giving_it_up_a_cancelled_begin_is_handed_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection whose command is still being cancelled does not tell what is open on it."""

    async def end(connection: TenantConnection) -> None:
        connection._top_xact = None
        if connection.is_in_transaction():
            await connection.execute("rollback")

    monkeypatch.setattr(TenantConnection, "end", end)
    monkeypatch.setattr(TenantConnection, "terminate", lambda _: None)
    with pytest.raises(AssertionError):
        test_cancelled_begin_is_nobodys(engine, "begin")


def test_probe_reads_in_a_transaction(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The probe's own settings hold, and no planted name is found, where the engine commits."""
    paths: list[Any] = []
    execute = module._numbered

    def spy(cursor: Any, commands: tuple[str, ...], parameters: Any) -> None:
        execute(cursor, (*commands[:-1], "show search_path"), {})
        paths.append(cursor.fetchone()[0])
        execute(cursor, commands, parameters)

    monkeypatch.setattr(module, "_numbered", spy)
    with (
        world.engine(wall, isolation_level="AUTOCOMMIT") as engine,
        contextlib.closing(engine.raw_connection()) as pooled,
    ):
        assert pooled.dbapi_connection is not None
        assert pooled.dbapi_connection.autocommit
    assert paths == ["pg_catalog, pg_temp"]

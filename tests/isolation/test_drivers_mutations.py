"""Each part of what carries the tenant with psycopg 3 and asyncpg, taken away, fails a check."""

from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError
from tests.fixtures import session_checks
from tests.fixtures.worlds import DATABASE_WALLS, DRIVER_WALLS, Wall, World
from tests.isolation import test_drivers as past_sqlalchemy
from tests.isolation import test_drivers_pool as pool

from tenantry import ConfigurationError
from tenantry.context import function_query
from tenantry.database import TENANCY_OPTION, Tenancy
from tenantry.drivers import DISCARD, asyncpg, begun, psycopg
from tenantry.drivers.begun import BegunDriver, WithBegin
from tenantry.drivers.psycopg2 import Psycopg2

Check = Callable[[Engine], None]


@pytest.fixture(params=DRIVER_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each driver in turn."""
    wall: Wall = request.param
    return wall


def leaves(leave: str) -> Check:
    """Return what leaves such a thing past SQLAlchemy, and by its text, and looks for it."""

    def check(engine: Engine) -> None:
        pool.check_left_past_sqlalchemy(engine, *pool.LEFTOVERS[leave])
        pool.check_left_by_text(engine, *pool.LEFTOVERS[leave])

    return check


def fails(world: World, wall: Wall, check: Check) -> None:
    """Run the check on a layer that lacks something, where it must fail."""
    with world.engine(wall) as engine, pytest.raises(AssertionError):
        check(engine)


def holds(world: World, wall: Wall, check: Check) -> None:
    """Run the check on a whole layer, where it must pass."""
    with world.engine(wall) as engine:
        check(engine)


@pytest.mark.parametrize(
    "check",
    [
        session_checks.check_transactions_in_turn,
        session_checks.check_tampering_is_not_inherited,
        session_checks.check_leak_sequence,
    ],
)
def test_without_the_context_in_begin_tenants_are_lost(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    """A BEGIN that carries nothing leaves the transaction to nobody, or to who tampered last."""
    holds(world, wall, check)
    monkeypatch.setattr(WithBegin, "opening", lambda *_: "select 1")
    fails(world, wall, check)


def test_setting_of_the_session_outlives_its_transaction(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context that is not the transaction's own is found outside of it."""
    check = past_sqlalchemy.check_setting_is_gone
    holds(world, wall, check)
    monkeypatch.setattr(
        begun, "function_query", lambda config, **_: function_query(config, local=False)
    )
    fails(world, wall, check)


def test_without_the_end_the_next_begin_is_the_last_tenants(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that the layer does not see end lends its tenant to the driver's next one."""
    check = pool.check_block_after_the_end
    holds(world, wall, check)
    with world.engine(wall) as engine:
        tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
        monkeypatch.setattr(tenancy, "on_end", lambda *_: None)
        with pytest.raises(AssertionError):
            check(engine)


@pytest.mark.parametrize("leave", ["advisory lock", "subscription", "prepared statement"])
def test_without_the_reset_things_are_left(world: World, wall: Wall, leave: str) -> None:
    """The handler that clears a returning connection is what keeps them from the next one."""
    check = leaves(leave)
    holds(world, wall, check)
    with world.engine(wall) as engine:
        tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
        event.remove(engine, "reset", tenancy.on_reset)
        with pytest.raises(AssertionError):
            check(engine)


def test_without_the_watch_on_cursors_a_lock_is_left(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a statement could leave something is what has a returning connection cleared."""
    check = leaves("advisory lock")
    for driver in (psycopg, asyncpg):
        monkeypatch.setattr(driver, "leaves_traces", lambda *_: False)
    fails(world, wall, check)


def test_without_deallocating_a_prepared_statement_is_left(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQL has prepared is not the driver's own, and is not left to it."""
    monkeypatch.setattr(BegunDriver, "discard", DISCARD)
    fails(world, wall, leaves("prepared statement"))


def test_deallocating_all_breaks_the_drivers_own(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`deallocate all` takes the statements away that the driver relies on."""
    monkeypatch.setattr(BegunDriver, "discard", f"deallocate all; {DISCARD}")
    with world.engine(wall) as engine, pytest.raises((DBAPIError, AssertionError)):
        pool.check_kept(engine)


def test_without_forgetting_messages_are_told_to_the_last_user(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callbacks are the driver's own affair, which no command to the server clears."""
    monkeypatch.setattr(BegunDriver, "forget", lambda *_: None)
    fails(world, wall, pool.check_callbacks)


@pytest.mark.parametrize("wall", pool.ASYNCPG, ids=str)
def test_without_the_watch_on_prepared_statements_a_lock_is_left(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement that was prepared in an earlier checkout does not pass by the connection."""
    holds(world, wall, pool.check_cached_statement)
    monkeypatch.delattr(asyncpg._WatchedStatement, "_check_conn_validity")
    fails(world, wall, pool.check_cached_statement)


@pytest.mark.parametrize("wall", pool.PSYCOPGS, ids=str)
def test_without_the_watch_on_begun_queries_a_foreign_cursor_leaves_a_lock(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor that the connection has not made is noticed when it begins."""
    holds(world, wall, pool.check_foreign_cursor)
    monkeypatch.delattr(psycopg._Carrying, "_start_query")
    fails(world, wall, pool.check_foreign_cursor)


@pytest.mark.parametrize("wall", [DATABASE_WALLS[0], *pool.PSYCOPG], ids=str)
def test_without_forgetting_last_notifications_are_the_next_users(
    world: World, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrives with the answer to the clearing itself is forgotten after it, not before."""
    for driver in (BegunDriver, Psycopg2):
        monkeypatch.setattr(driver, "forget", lambda *_: None)
    fails(world, wall, partial(pool.check_notifications, world))


def test_without_a_look_at_it_autocommit_is_handed_on(world: World, wall: Wall) -> None:
    """A connection that was left in autocommit refuses each later tenant."""
    holds(world, wall, pool.check_autocommit)
    with world.engine(wall) as engine:
        tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
        event.remove(engine, "checkout", tenancy.on_checkout)
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            pool.check_autocommit(engine)

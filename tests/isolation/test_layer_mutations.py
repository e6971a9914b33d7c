"""Each part of the layer taken away lets an attack through: its tests can fail."""

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event, text
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from tests.fixtures import session_checks
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    Wall,
    World,
    new_world,
    stop_comparing,
    tear_down_wall,
)

from tenantry import UnfilterableStatementError, cursors, filters, sessions, tenancy, ways
from tenantry.database import TENANCY_OPTION, ConnectionState, Tenancy
from tenantry.testing import Server

DATABASE = Wall("database", "session", "prefix")
LOCAL = Wall("database", "transaction", "prefix")
FILTERS = Wall("filters", "session")
WAYS_OF_SESSIONS = tuple(wall for wall in DATABASE_WALLS if wall.scope == "session")


def layer(engine: Engine) -> Tenancy:
    """Return the layer whose handlers the engine calls."""
    tenancy: Tenancy = engine.get_execution_options()[TENANCY_OPTION]
    return tenancy


def holds(world: World, wall: Wall, check: Callable[[Engine], None]) -> None:
    """Run the check on a whole layer, where it must pass."""
    with world.engine(wall) as engine:
        check(engine)


def remove_reissue(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what writes the tenant: at each begin, and where it is found to be missing."""
    stop_comparing(engine)
    if event.contains(engine, "begin", layer(engine).on_begin_at_once):
        event.remove(engine, "begin", layer(engine).on_begin_at_once)
    for handler in ("on_begin", "on_begin_at_once"):
        monkeypatch.setattr(layer(engine), handler, lambda *_: None)
    monkeypatch.setattr(ConnectionState, "end_transaction", lambda _: None)
    monkeypatch.setattr(ways, "replace_session_tenant", lambda *_: None)


def test_without_the_reset_a_raw_connection_leaks(world: World) -> None:
    """The handler that clears a returning connection is what keeps raw connections apart."""
    holds(world, DATABASE, session_checks.check_raw_connection_sees_nothing)
    with world.engine(DATABASE) as engine:
        event.remove(engine, "reset", layer(engine).on_reset)
        with pytest.raises(AssertionError):
            session_checks.check_raw_connection_sees_nothing(engine)


@pytest.mark.parametrize("wall", WAYS_OF_SESSIONS, ids=str)
def test_without_the_write_at_begin_tampering_is_inherited(
    world: World, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    """Writing the tenant, or none, in each transaction is what a setting left behind meets."""
    holds(world, wall, session_checks.check_tampering_is_not_inherited)
    with world.engine(wall) as engine:
        remove_reissue(engine, monkeypatch)
        with pytest.raises(AssertionError):
            session_checks.check_tampering_is_not_inherited(engine)


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_without_the_write_at_begin_tenants_are_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, wall: Wall
) -> None:
    """A tenant that is not written again at each begin does not outlast the transaction."""
    holds(world, wall, session_checks.check_transactions_in_turn)
    with world.engine(wall) as engine:
        remove_reissue(engine, monkeypatch)
        with pytest.raises(AssertionError):
            session_checks.check_transactions_in_turn(engine)


@pytest.mark.parametrize("wall", WAYS_OF_SESSIONS, ids=str)
@pytest.mark.parametrize(
    "check",
    [session_checks.check_leak_sequence, session_checks.check_next_user_sees_nothing],
)
def test_without_both_the_next_user_reads_the_last_tenant(
    world: World, monkeypatch: pytest.MonkeyPatch, wall: Wall, check: Callable[[Engine], None]
) -> None:
    """With neither reset nor write at begin the pool hands A's setting to whoever is next."""
    holds(world, wall, check)
    with world.engine(wall) as engine:
        event.remove(engine, "reset", layer(engine).on_reset)
        remove_reissue(engine, monkeypatch)
        with pytest.raises(AssertionError):
            check(engine)


def test_without_the_watch_on_traces_a_lock_is_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That a statement could leave something is what has a returning connection cleared."""

    def locks_left(engine: Engine) -> int:
        for _ in range(2):
            with engine.connect() as connection:
                connection.execute(text("select pg_advisory_lock(42)"))
                connection.commit()
        with engine.connect() as connection:
            count = "select count(*) from pg_locks where locktype = 'advisory' and pid = "
            return int(connection.scalar(text(f"{count} pg_backend_pid()")) or 0)

    with world.engine(LOCAL) as engine:
        assert locks_left(engine) == 0
    monkeypatch.setattr(cursors, "leaves_traces", lambda *_: False)
    with world.engine(LOCAL) as engine:
        assert locks_left(engine) == 1


def test_without_the_sessions_handler_a_joined_transaction_is_not_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Session that is known on its Connection is what notices one of another tenant."""
    holds(world, DATABASE, session_checks.check_open_transaction_of_another_is_refused)
    monkeypatch.setattr(sessions, "add_user", lambda *_: None)
    handler = sessions._on_after_begin
    event.remove(Session, "after_begin", handler)
    try:
        with world.engine(DATABASE) as engine, pytest.raises(pytest.fail.Exception):
            session_checks.check_open_transaction_of_another_is_refused(engine)
    finally:
        event.listen(Session, "after_begin", handler)


def test_without_the_sessions_handler_a_late_tenant_comes_too_late(world: World) -> None:
    """The same handler is what lets `set_tenant` reach a transaction that is open."""
    holds(world, DATABASE, session_checks.check_late_tenant_counts_at_once)
    handler = sessions._on_after_begin
    event.remove(Session, "after_begin", handler)
    try:
        with world.engine(DATABASE) as engine, pytest.raises(AssertionError):
            session_checks.check_late_tenant_counts_at_once(engine)
    finally:
        event.listen(Session, "after_begin", handler)


def test_without_the_sessions_handlers_a_switch_is_not_refused(world: World) -> None:
    """A Session that forgets its Connections lets itself be switched in mid-transaction."""
    holds(world, DATABASE, session_checks.check_switch_in_transaction_is_refused)
    handler = sessions._on_after_begin
    event.remove(Session, "after_begin", handler)
    try:
        with (
            world.engine(DATABASE) as engine,
            pytest.raises((AssertionError, pytest.fail.Exception)),
        ):
            session_checks.check_switch_in_transaction_is_refused(engine)
    finally:
        event.listen(Session, "after_begin", handler)


def test_without_the_filter_on_reads_tenants_are_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where filters are the only wall, the rendered sub-query is what confines a SELECT."""
    holds(world, FILTERS, session_checks.check_orm_reads_are_confined)
    monkeypatch.setattr(filters.FilteringCompiler, "visit_table", SQLCompiler.visit_table)
    with world.engine(FILTERS) as engine, pytest.raises(AssertionError):
        session_checks.check_orm_reads_are_confined(engine)


@pytest.mark.parametrize("visit", ["visit_update", "visit_delete", "visit_insert"])
def test_without_the_filter_on_writes_tenants_are_written(
    world: World, monkeypatch: pytest.MonkeyPatch, visit: str
) -> None:
    """Where filters are the only wall, each command needs its own."""
    holds(world, FILTERS, session_checks.check_orm_writes_are_confined)
    monkeypatch.setattr(filters.FilteringCompiler, visit, getattr(SQLCompiler, visit))
    with world.engine(FILTERS) as engine, pytest.raises(AssertionError):
        session_checks.check_orm_writes_are_confined(engine)


def test_without_the_gate_a_row_is_planted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where filters are the only wall, what is not proven to be confined must not run."""
    monkeypatch.setattr(tenancy, "check_statement", lambda *_: None)
    with world.engine(FILTERS) as engine, pytest.raises(AssertionError):
        session_checks.check_orm_writes_are_confined(engine)


def test_with_filters_off_and_no_wall_nothing_is_hidden(world: World) -> None:
    """Filters that are off are noticed: the statements are refused, not run unfiltered."""
    with world.engine(FILTERS) as engine:
        engine.connect().close()
        layer(engine).filtering.active = False
        with pytest.raises(UnfilterableStatementError):
            session_checks.check_orm_reads_are_confined(engine)


def test_without_the_databases_wall_the_reads_leak(
    tenantry_server: Server, tenantry_template: str
) -> None:
    """With row security disabled under an engine that trusts it, the checks fail."""
    with new_world(tenantry_server, tenantry_template) as world, world.engine(DATABASE) as engine:
        session_checks.check_orm_reads_are_confined(engine)
        tear_down_wall(world.walled)
        for check in (
            session_checks.check_orm_reads_are_confined,
            session_checks.check_orm_writes_are_confined,
            session_checks.check_leak_sequence,
            session_checks.check_next_user_sees_nothing,
            session_checks.check_raw_connection_sees_nothing,
            session_checks.check_tampering_is_not_inherited,
        ):
            with pytest.raises(AssertionError):
                check(engine)

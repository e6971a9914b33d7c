"""Where a session has had a tenant before, what goes round the next one's cursors is not its."""

import contextlib
from typing import Any

import pytest
from psycopg2 import ProgrammingError, sql
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from tests.fixtures.messages import QUERY, direct, fetched, names
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    A,
    B,
    Wall,
    World,
    bound,
    cursor_of,
    names_of,
    seen,
)

from tenantry import Tenant, clear_tenant, get_tenant, set_tenant
from tenantry.ways import Separate


@pytest.fixture(params=DATABASE_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each way in each scope."""
    wall: Wall = request.param
    return wall


def check_rollback_behind_the_back(engine: Engine) -> None:
    """Roll B's transaction back by the driver and in SQL, where A's was on the same Connection."""
    for end in ("driver", "text"):
        with engine.connect() as connection:
            with Session(connection) as session:
                set_tenant(session, A)
                assert seen(session) == names_of("a")
                session.commit()
            with Session(connection) as session:
                set_tenant(session, B)
                driver: Any = session.connection().connection.dbapi_connection
                if end == "driver":
                    driver.rollback()
                    rows = direct(driver)
                else:
                    rows = names(session.execute(text(f"rollback; {QUERY}")))
                assert rows in (set(), names_of("b"))


def test_rollback_behind_the_back_brings_no_earlier_tenant_back(engine: Engine) -> None:
    """What was A's is replaced for good before B's transaction on the Connection begins."""
    check_rollback_behind_the_back(engine)


def test_two_phase_transaction_replaces_the_earlier_tenant(engine: Engine) -> None:
    """Before a two-phase begin, ahead of which nothing can be sent, A is replaced as well."""
    with engine.connect() as connection:
        with Session(connection) as session:
            set_tenant(session, A)
            assert seen(session) == names_of("a")
            session.commit()
        connection.begin_twophase()
        driver: Any = connection.connection.dbapi_connection
        assert direct(driver) == set()
        connection.rollback()


@pytest.mark.parametrize("wall", [w for w in DATABASE_WALLS if w.scope == "session"], ids=str)
def test_tenant_that_cannot_be_replaced_stays_bound(engine: Engine) -> None:
    """While a raw cursor's transaction is open A is neither cleared nor replaced by half."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.commit()
        driver: Any = connection.connection.dbapi_connection
        driver.cursor().execute("select 1")
        for change in (clear_tenant, lambda target: set_tenant(target, B)):
            with pytest.raises(ProgrammingError, match="inside a transaction"):
                change(connection)
            assert get_tenant(connection) == Tenant.parse(A)
        driver.rollback()
        clear_tenant(connection)
        assert direct(driver) == set()


def check_stored_tenant(world: World, wall: Wall) -> None:
    """Connect where A is stored for the role, and look for its rows as B, and as nobody."""
    role = sql.Identifier(world.walled.app_url.username or "")
    setting = sql.SQL("alter role {} in database {} {} app.current_organization {}")
    place = role, sql.Identifier(world.walled.name)
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute(
            setting.format(*place, sql.SQL("set"), sql.SQL("= {}").format(sql.Literal(str(A))))
        )
        try:
            with world.engine(wall) as engine:
                with contextlib.closing(engine.raw_connection()) as raw:
                    assert fetched(raw.cursor()) == set()
                with bound(engine, B) as session:
                    driver: Any = session.connection().connection.dbapi_connection
                    assert direct(driver) in (set(), names_of("b"))
                    driver.rollback()
                    assert fetched(driver.cursor()) in (set(), names_of("b"))
        finally:
            cursor.execute(setting.format(*place, sql.SQL("reset"), sql.SQL("")))


def test_tenant_that_is_stored_for_the_role_is_nobodys(world: World, wall: Wall) -> None:
    """A default that an administrator stored is overwritten on connecting, in each scope."""
    check_stored_tenant(world, wall)


def test_stored_tenant_that_is_not_overwritten_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the message on connecting, raw connections are the stored tenant's."""
    monkeypatch.setattr("tenantry.drivers.psycopg2.outside_transaction", lambda *_: None)
    with pytest.raises(AssertionError):
        check_stored_tenant(world, Wall("database", "transaction", "prefix"))


def test_tenant_that_is_written_over_an_earlier_one_is_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A way that writes B where a rollback brings A back lets B read A's rows."""

    def write(_: Separate, connection: Any, state: Any, tenant: Any) -> None:
        state.write(connection.cursor(), tenant)

    monkeypatch.setattr(Separate, "announce", write)
    with (
        world.engine(Wall("database", "session", "separate")) as engine,
        pytest.raises(AssertionError),
    ):
        check_rollback_behind_the_back(engine)

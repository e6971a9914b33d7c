"""Work across tenants is logged before it begins, and only the maintenance role can do it."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from tests.fixtures.logins import make_logins
from tests.fixtures.worlds import TENANTS, A, World, cursor_of, names_of, new_world

from assay.models import TestSet
from tenantry import (
    ConfigurationError,
    DatabaseUnreachableError,
    MissingMigrationsError,
    TenancyConfig,
    WrongRoleError,
    create_maintenance_engine,
    maintenance_session,
)
from tenantry.testing import Server


@pytest.fixture
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return a walled and a bare database of the test's own."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


@pytest.fixture
def engine(world: World) -> Iterator[Engine]:
    """Return an engine of the maintenance login."""
    engine = create_maintenance_engine(world.walled.maintenance_url)
    yield engine
    engine.dispose()


def logged(world: World) -> list[tuple[Any, ...]]:
    """Return who is in the access log, and why."""
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute("select actor, reason from maintenance_log order by id")
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def test_every_tenant_is_seen_and_changed(world: World, engine: Engine) -> None:
    """The one Session that sees all tenants commits its work at the end."""
    with maintenance_session(reason="count", actor="ops", engine=engine) as session:
        everything = set().union(*map(names_of, TENANTS))
        assert set(session.scalars(select(TestSet.name))) == everything
        for row in session.scalars(select(TestSet).filter_by(organization_id=A)):
            row.description = "counted"
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute("select name from test_sets where description = 'counted'")
        assert {name for (name,) in cursor.fetchall()} == names_of("a")
    assert logged(world) == [("ops", "count")]


def test_log_is_written_before_the_work(world: World, engine: Engine) -> None:
    """While the work runs, its record is there for others to see."""
    with maintenance_session(reason="look", actor="ops", engine=engine):
        assert logged(world) == [("ops", "look")]


def test_log_is_kept_when_the_work_fails(world: World, engine: Engine) -> None:
    """An exception undoes the work, not the record of it."""

    def work() -> None:
        with maintenance_session(reason="break", actor="ops", engine=engine) as session:
            for row in session.scalars(select(TestSet)):
                row.description = "broken"
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        work()
    assert logged(world) == [("ops", "break")]
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute("select count(*) from test_sets where description = 'broken'")
        assert cursor.fetchone() == (0,)


@pytest.mark.parametrize(
    "statement",
    [
        "delete from maintenance_log",
        "update maintenance_log set reason = 'none'",
        "truncate maintenance_log",
    ],
)
def test_log_cannot_be_rewritten(world: World, engine: Engine, statement: str) -> None:
    """The maintenance role appends to the log and does nothing else to it."""

    def work() -> None:
        with maintenance_session(reason="hide", actor="ops", engine=engine) as session:
            session.connection().exec_driver_sql(statement)

    with pytest.raises(DBAPIError, match="permission denied"):
        work()
    assert logged(world) == [("ops", "hide")]


def test_application_neither_reads_nor_writes_the_log(world: World) -> None:
    """The application's login has no part in the access log."""
    with cursor_of(world.walled.app_url) as cursor:
        for statement in (
            "select * from maintenance_log",
            "insert into maintenance_log (actor, reason) values ('a', 'b')",
        ):
            with pytest.raises(Exception, match="permission denied"):
                cursor.execute(statement)


@pytest.mark.parametrize(
    ("reason", "actor"), [("", "ops"), (" \n", "ops"), ("why", ""), ("w", " ")]
)
def test_blank_reason_or_actor_is_refused(
    world: World, engine: Engine, reason: str, actor: str
) -> None:
    """Nothing is done that the log could not explain."""
    with (
        pytest.raises(ConfigurationError, match="blank"),
        maintenance_session(reason=reason, actor=actor, engine=engine),
    ):
        pytest.fail("the session was opened")
    assert logged(world) == []


def test_wrong_login_is_refused(world: World) -> None:
    """The application's login cannot take the maintenance role."""
    engine = create_maintenance_engine(world.walled.app_url)
    with (
        pytest.raises(WrongRoleError, match="cannot act as 'tenantry_maintenance'"),
        maintenance_session(reason="why", actor="ops", engine=engine),
    ):
        pytest.fail("the session was opened")
    engine.dispose()
    assert logged(world) == []


def test_role_without_bypassrls_is_refused(world: World) -> None:
    """A role that row security binds would see no rows, which is no answer."""
    with make_logins(world.walled) as logins:
        bound_role = logins()
        engine = create_maintenance_engine(
            logins(bound_role.name).url, config=TenancyConfig(maintenance_role=bound_role.name)
        )
        with (
            pytest.raises(WrongRoleError, match="BYPASSRLS"),
            maintenance_session(reason="why", actor="ops", engine=engine),
        ):
            pytest.fail("the session was opened")
        engine.dispose()
    assert logged(world) == []


def test_missing_log_is_told(world: World, engine: Engine) -> None:
    """Without the table of the log no work across tenants is done."""
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute("alter table maintenance_log rename to gone")
    with (
        pytest.raises(MissingMigrationsError, match="alembic upgrade head"),
        maintenance_session(reason="why", actor="ops", engine=engine),
    ):
        pytest.fail("the session was opened")


def test_unreachable_server_is_told_without_the_password(world: World) -> None:
    """A wrong URL is one clear error, and the password is not in it."""
    for changes in ({"port": 1}, {"password": "wrong-secret"}, {"database": "absent"}):
        url = world.walled.maintenance_url.set(**changes)
        engine = create_maintenance_engine(url)
        with (
            pytest.raises(DatabaseUnreachableError) as caught,
            maintenance_session(reason="why", actor="ops", engine=engine),
        ):
            pytest.fail("the session was opened")
        assert str(url.password) not in str(caught.value)
        engine.dispose()


def test_role_is_taken_on_every_connection(world: World) -> None:
    """Each new connection acts as the maintenance role, after the pool was emptied too."""
    engine = create_maintenance_engine(world.walled.maintenance_url, pool_size=1)
    for _ in range(2):
        with engine.connect() as connection:
            assert connection.exec_driver_sql("select current_user").scalar_one() == (
                "tenantry_maintenance"
            )
        engine.dispose()

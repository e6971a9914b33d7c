"""What each mode does where the wall stands, where it is missing, and where nobody answers."""

import logging
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.engine import URL
from tests.fixtures.logins import make_logins
from tests.fixtures.worlds import A, World, bound, cursor_of, names_of, new_world, seen

from assay.models import Base, TestSet
from tenantry import (
    ConfigurationError,
    DatabaseUnreachableError,
    IsolationNotEnforcedError,
    MissingMigrationsError,
    UnfilterableStatementError,
    create_tenant_engine,
)
from tenantry.config import Mode, Scope
from tenantry.database import connection_state
from tenantry.testing import Server

READ = text("select name from test_sets")


@pytest.fixture
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return a walled and a bare database of the test's own."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


def engine_for(url: URL, mode: Mode) -> Engine:
    """Return a protected engine with one connection."""
    return create_tenant_engine(url, mode=mode, metadata=Base.metadata, pool_size=1, max_overflow=0)


def read_as(engine: Engine) -> set[str]:
    """Return what A sees, and close the engine's connections."""
    try:
        with bound(engine, A) as session:
            return seen(session)
    finally:
        engine.dispose()


@pytest.mark.parametrize("mode", ["auto", "database", "filters", "both"])
def test_where_the_wall_stands_every_mode_works(
    world: World, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """With row security in place each mode shows A's rows, and nothing is warned of."""
    with caplog.at_level(logging.INFO, "tenantry"):
        assert read_as(engine_for(world.walled.app_url, mode)) == names_of("a")
    assert caplog.records == []


@pytest.mark.parametrize(
    ("mode", "filtered", "guarded"),
    [
        ("auto", False, False),
        ("database", False, False),
        ("filters", True, True),
        ("both", True, False),
    ],
)
def test_mode_decides_what_confines_a_statement(
    world: World, mode: Mode, filtered: bool, guarded: bool
) -> None:
    """Filters are rendered by `filters` and `both`; text is refused where they are alone."""
    engine = engine_for(world.walled.app_url, mode)
    statement = str(select(TestSet.name).compile(engine))
    assert ("organization_id" in statement) is filtered
    with bound(engine, A) as session:
        assert connection_state(session.connection()).guarded is guarded
        if guarded:
            with pytest.raises(UnfilterableStatementError):
                session.execute(READ)
        else:
            assert set(session.execute(READ).scalars()) == names_of("a")
    engine.dispose()


@pytest.mark.parametrize("mode", ["auto", "both"])
def test_missing_wall_is_warned_of_once_and_filtered(
    world: World, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """Without row security one warning names the reason, filters stand in, text is refused."""
    engine = engine_for(world.open.app_url, mode)
    with caplog.at_level(logging.INFO, "tenantry"):
        for _ in range(3):
            with bound(engine, A) as session:
                assert seen(session) == names_of("a")
                with pytest.raises(UnfilterableStatementError):
                    session.execute(READ)
            engine.dispose()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.name == "tenantry"
    assert "row security is not enabled" in record.getMessage()
    assert world.open.name in record.getMessage()


def test_wall_that_falls_while_the_engine_lives_is_noticed(world: World) -> None:
    """A new connection that finds the wall gone refuses what an older one compiled unfiltered."""
    engine = engine_for(world.walled.app_url, "auto")
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
    engine.dispose()
    with cursor_of(world.walled.owner_url, "tenantry_owner") as cursor:
        cursor.execute("alter table test_sets disable row level security")
    with bound(engine, A) as session:
        with pytest.raises(UnfilterableStatementError, match="restart the process"):
            seen(session)
        assert set(session.scalars(select(TestSet.name, TestSet.id))) == names_of("a")
    engine.dispose()


def test_mode_database_refuses_without_a_wall(world: World) -> None:
    """In mode `database` no connection is handed out where the wall is missing."""
    engine = engine_for(world.open.app_url, "database")
    for _ in range(2):
        with pytest.raises(IsolationNotEnforcedError, match="row security is not enabled"):
            engine.connect()
    with bound(engine, A) as session, pytest.raises(IsolationNotEnforcedError):
        session.connection()
    engine.dispose()


def test_filters_need_no_reason(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever chose `filters` is not warned that there is no wall."""
    with caplog.at_level(logging.INFO, "tenantry"):
        assert read_as(engine_for(world.open.app_url, "filters")) == names_of("a")
    assert caplog.records == []


def test_role_above_the_wall_is_refused_or_filtered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A login with BYPASSRLS is refused by `database` and filtered by `auto`, which says so."""
    with make_logins(world.walled) as logins:
        url = logins("tenantry_app", options="bypassrls").url
        engine = engine_for(url, "database")
        with pytest.raises(IsolationNotEnforcedError, match="BYPASSRLS"):
            engine.connect()
        engine.dispose()
        assert read_as(engine_for(url, "auto")) == names_of("a")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "BYPASSRLS" in caplog.text


def test_stored_default_is_warned_of_and_overwritten(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """A tenant that comes with the login is named in a warning and counts for nothing."""
    with make_logins(world.walled) as logins:
        login = logins("tenantry_app")
        with cursor_of(world.walled.superuser_url) as cursor:
            cursor.execute(f"alter role {login.name} set app.current_organization = '{A}'")
        engine = engine_for(login.url, "database")
        with engine.connect() as connection:
            assert seen(connection) == set()
            raw = connection.connection.cursor()
            connection.commit()
            raw.execute("select name from test_sets")
            assert raw.fetchall() == []
        engine.dispose()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "stored default" in caplog.text


@pytest.mark.parametrize("mode", ["auto", "database", "both"])
def test_database_without_tables_asks_for_migrations(tenantry_server: Server, mode: Mode) -> None:
    """Before the migrations the first connection says which command to run."""
    database = tenantry_server.create_database()
    engine = engine_for(database.app_url, mode)
    with pytest.raises(MissingMigrationsError, match="alembic upgrade head"):
        engine.connect()
    engine.dispose()
    database.drop()


def test_missing_table_asks_for_migrations(world: World) -> None:
    """A table that the models have and the database lacks is named with the command."""
    engine = engine_for(world.walled.app_url, "database")
    with cursor_of(world.walled.owner_url, "tenantry_owner") as cursor:
        cursor.execute("alter table test_sets rename to old_sets")
    with (
        bound(engine, A) as session,
        pytest.raises(MissingMigrationsError, match=r"test_sets.*alembic upgrade head"),
    ):
        session.scalars(select(TestSet)).all()
    engine.dispose()


def test_missing_column_asks_for_migrations(world: World) -> None:
    """A column that the models have and the database lacks is named with the command."""
    engine = engine_for(world.walled.app_url, "database")
    with cursor_of(world.walled.owner_url, "tenantry_owner") as cursor:
        cursor.execute("alter table test_sets drop column description")
    try:
        with bound(engine, A) as session, pytest.raises(MissingMigrationsError):
            session.scalars(select(TestSet)).all()
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "changes",
    [{"port": 1}, {"password": "wrong-secret"}, {"database": "absent"}, {"username": "absent"}],
    ids=lambda changes: next(iter(changes)),
)
def test_unreachable_database_is_told_without_the_password(
    world: World, changes: dict[str, object]
) -> None:
    """Whatever is wrong with the URL, one error says where, and never the password."""
    url = world.walled.app_url.set(**changes)  # type: ignore[arg-type]
    engine = engine_for(url, "auto")
    with pytest.raises(DatabaseUnreachableError) as caught:
        engine.connect()
    with bound(engine, A) as session, pytest.raises(DatabaseUnreachableError):
        session.connection()
    message = str(caught.value)
    assert str(url.host) in message
    assert str(url.password) not in message
    assert "***" in message
    engine.dispose()


def test_password_in_the_query_is_not_told(world: World) -> None:
    """A password that stands in the URL's query is as secret as one in its usual place."""
    url = world.walled.app_url.set(password=None, port=1)
    engine = engine_for(url.update_query_dict({"password": "hunter2"}), "auto")
    with pytest.raises(DatabaseUnreachableError) as caught:
        engine.connect()
    engine.dispose()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://localhost/x", "postgresql+asyncpg://x/y"])
def test_wrong_url_is_a_configuration_error(url: str) -> None:
    """A URL that cannot be PostgreSQL by psycopg2 is refused before anything is connected."""
    with pytest.raises(ConfigurationError):
        create_tenant_engine(url)


@pytest.mark.parametrize(("mode", "scope"), [("off", "auto"), ("auto", "statement")])
def test_unknown_mode_or_scope_is_refused(world: World, mode: Mode, scope: Scope) -> None:
    """A misspelt mode must not silently be another one."""
    with pytest.raises(ConfigurationError):
        create_tenant_engine(world.walled.app_url, mode=mode, scope=scope)

"""What psycopg 3 and asyncpg cannot do is refused by an error that names the way out."""

import gc
import logging
import subprocess
import sys
import uuid
import warnings
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    insert,
    select,
    text,
)
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import Session
from tests.fixtures.drivers import engine_of, run, url_of
from tests.fixtures.worlds import DRIVER_WALLS, A, B, Wall, World, bound, names_of, seen

from assay.models import Base, TestSet
from tenantry import (
    ConfigurationError,
    DatabaseUnreachableError,
    IsolationNotEnforcedError,
    MissingMigrationsError,
    TenancyConfig,
    UnknownTenantError,
    create_tenant_engine,
    protect_engine,
)
from tenantry.asyncio import create_async_tenant_engine
from tenantry.config import Mode, parse_url


@pytest.fixture(params=DRIVER_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each driver in turn."""
    wall: Wall = request.param
    return wall


def plain(world: World, wall: Wall, **options: Any) -> Engine:
    """Return an engine that is not protected, and has not connected."""
    return engine_of(wall.driver, world.walled.app_url, **options)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scope": "session"}, "use scope 'auto' or 'transaction'"),
        ({"context": "begin"}, r"leave it at 'auto', or use postgresql\+psycopg2"),
        ({"context": "prefix"}, r"leave it at 'auto', or use postgresql\+psycopg2"),
        ({"context": "separate"}, r"leave it at 'auto', or use postgresql\+psycopg2"),
        ({"mode": "filters"}, r"the database's wall in place .*, or use postgresql\+psycopg2"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_what_the_driver_cannot_do_is_refused_at_once(
    world: World, wall: Wall, options: Any, named: str
) -> None:
    """A scope, way or mode that there is not with this driver is refused before it connects."""
    with pytest.raises(ConfigurationError, match=named):
        protect_engine(plain(world, wall), **options)


@pytest.mark.parametrize("mode", ["auto", "both", "database"])
def test_missing_wall_is_not_replaced_by_filters(
    world: World, wall: Wall, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    """Where the database does not keep tenants apart nothing connects; no filter is promised."""
    engine = protect_engine(engine_of(wall.driver, world.open.app_url), mode=mode)
    with caplog.at_level(logging.WARNING), pytest.raises(IsolationNotEnforcedError) as caught:
        engine.connect()
    assert "psycopg2" in str(caught.value)
    assert caplog.messages == []
    engine.dispose()


def test_filters_work_in_addition_to_the_wall(world: World, wall: Wall) -> None:
    """With mode `both` statements are filtered as well: the tenant is in their text."""
    with world.engine(Wall("both", "transaction", driver=wall.driver)) as engine:
        for letter, tenant in (("a", A), ("b", B)):
            with bound(engine, tenant) as session:
                assert seen(session) == names_of(letter)
                assert session.get(TestSet, (tenant, B)) is None
                session.execute(insert(TestSet), [{"name": "new"}, {"name": "newer"}])
                assert seen(session) == names_of(letter) | {"new", "newer"}
                compiled = select(TestSet).compile(dialect=engine.dialect)
                assert "organization_id = " in str(compiled).partition("FROM")[2]
                session.rollback()


def test_connections_of_another_class_are_refused(world: World, wall: Wall) -> None:
    """A connection that the layer has not had made carries no tenant, and is not handed out."""
    url = url_of(wall.driver, world.walled.app_url)
    named: dict[str, Any] = {
        "host": url.host,
        "port": url.port,
        "user": url.username,
        "password": url.password,
    }

    async def connect_psycopg(*_: object, **__: object) -> Any:
        return await psycopg.AsyncConnection.connect(dbname=url.database, **named)

    async def connect_asyncpg(*_: object, **__: object) -> Any:
        return await asyncpg.connect(database=url.database, **named)

    if wall.driver == "psycopg":
        engines = [
            create_engine(url, creator=lambda: psycopg.connect(dbname=url.database, **named))
        ]
    else:
        connect = connect_asyncpg if wall.driver == "asyncpg" else connect_psycopg
        engines = [
            create_async_engine(url, async_creator=connect).sync_engine,
            create_async_engine(url, connect_args={"async_creator_fn": connect}).sync_engine,
        ]
    for engine in engines:
        protect_engine(engine)
        with pytest.raises(ConfigurationError, match="carries no tenant"):
            engine.connect()
        engine.dispose()


def test_what_listens_to_connecting_is_heard(world: World, wall: Wall) -> None:
    """A listener that hands in a password, as short-lived ones want it, is asked for it."""
    url = world.walled.app_url
    engine = protect_engine(engine_of(wall.driver, url.set(password="nonsense")))

    @event.listens_for(engine, "do_connect")
    def hand_in(_dialect: object, _record: object, _args: object, options: Any) -> None:
        options["password"] = url.password

    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
    engine.dispose()


def test_unreachable_server_is_said_so(world: World, wall: Wall) -> None:
    """Nobody who listens, and a password that is wrong, are one error of the library's own."""
    url = world.walled.app_url
    for wrong in (url.set(port=1), url.set(password="nonsense"), url.set(database="nowhere")):
        engine = protect_engine(engine_of(wall.driver, wrong))
        with pytest.raises(DatabaseUnreachableError) as caught:
            engine.connect()
        assert "nonsense" not in str(caught.value)
        engine.dispose()


def test_causes_of_errors_are_named(world: World, wall: Wall) -> None:
    """A missing organization, and a missing table, are told by the server's code."""
    metadata = MetaData()
    ghosts = Table("ghosts", metadata, Column("id", Integer))
    for table in Base.metadata.tables.values():
        table.to_metadata(metadata)
    engine = protect_engine(plain(world, wall), metadata=metadata)
    with bound(engine, uuid.uuid4()) as session:
        session.add(TestSet(name="stray"))
        with pytest.raises(UnknownTenantError):
            session.flush()
        session.rollback()
        with pytest.raises(MissingMigrationsError, match="does not exist"):
            session.execute(select(ghosts))
    engine.dispose()


def test_missing_tables_are_named(world: World, wall: Wall) -> None:
    """The probe knows the tenant's column by the configured name with these drivers too."""
    config = TenancyConfig(tenant_column="nobody_has_this", root_table="nor_this")
    engine = protect_engine(plain(world, wall), config=config)
    with pytest.raises(MissingMigrationsError, match="nobody_has_this"):
        engine.connect()
    engine.dispose()


def test_driver_of_the_other_kind_is_refused() -> None:
    """A synchronous engine takes no asynchronous driver, nor the other way round."""
    with pytest.raises(
        ConfigurationError, match=r"use postgresql\+psycopg2 or postgresql\+psycopg"
    ):
        create_tenant_engine("postgresql+asyncpg://localhost/none")
    with pytest.raises(ConfigurationError, match=r"use postgresql\+psycopg or postgresql\+asyncpg"):
        create_async_tenant_engine("postgresql+psycopg2://localhost/none")
    bare = parse_url("postgresql://localhost/none", drivers=("psycopg", "asyncpg"))
    assert bare.drivername == "postgresql+psycopg"


def test_drivers_are_not_imported_before_they_are_used() -> None:
    """`import tenantry` and an engine of psycopg2 need neither psycopg 3 nor asyncpg."""
    script = (
        "import sys, tenantry\n"
        "tenantry.create_tenant_engine('postgresql+psycopg2://localhost/none')\n"
        "loaded = {'psycopg', 'asyncpg', 'sqlalchemy.ext.asyncio'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_session_left_to_the_collector_is_nobodys(world: World, wall: Wall) -> None:
    """A Session of A's that nobody closed does not hand its connection on in its transaction."""

    def abandon(engine: Engine) -> None:
        session = bound(engine, A)
        assert seen(session) == names_of("a")

    with world.engine(wall) as engine:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            abandon(engine)
            gc.collect()
        with engine.connect() as connection:
            assert seen(connection) == set()
        with bound(engine, B) as session:
            assert seen(session) == names_of("b")


def test_engine_is_protected_with_its_sessions(world: World, wall: Wall) -> None:
    """`protect_engine` returns what it was given, and refuses it the second time."""
    url = url_of(wall.driver, world.walled.app_url)
    if wall.driver == "psycopg":
        engine = create_engine(url)
        assert protect_engine(engine) is engine
        with pytest.raises(ConfigurationError, match="already protected"):
            protect_engine(engine)
        with Session(engine) as session:
            assert session.scalar(text("select 1")) == 1
        engine.dispose()
        return
    asynchronous = create_async_engine(url)
    assert protect_engine(asynchronous) is asynchronous
    with pytest.raises(ConfigurationError, match="already protected"):
        protect_engine(asynchronous)
    run(wall.driver, asynchronous.sync_engine.dispose)

"""Only a protected engine takes a tenant, and protecting one is not done halfway."""

import re

import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import Session
from tests.fixtures.worlds import A, World, bound, names_of, seen

from assay.models import Base
from tenantry import ConfigurationError, create_tenant_engine, protect_engine, set_tenant


def test_unprotected_engine_cannot_be_given_a_tenant(world: World) -> None:
    """A tenant is not bound where nothing would keep it."""
    engine = create_engine(world.walled.app_url)
    try:
        with Session(engine) as session, pytest.raises(ConfigurationError, match="not protected"):
            set_tenant(session, A)
        with engine.connect() as connection, pytest.raises(ConfigurationError, match="protected"):
            set_tenant(connection, A)
    finally:
        engine.dispose()


def test_engine_made_elsewhere_can_be_protected_once(world: World) -> None:
    """`protect_engine` gives an engine the guarantee; twice, or too late, it refuses."""
    engine = create_engine(world.walled.app_url, pool_size=1, max_overflow=0)
    try:
        assert protect_engine(engine, metadata=Base.metadata) is engine
        with bound(engine, A) as session:
            assert seen(session) == names_of("a")
        with pytest.raises(ConfigurationError, match="already protected"):
            protect_engine(engine)
    finally:
        engine.dispose()
    used = create_engine(world.walled.app_url)
    try:
        with used.connect():
            pass
        with pytest.raises(ConfigurationError, match="opened unprotected"):
            protect_engine(used)
    finally:
        used.dispose()


def test_connection_from_before_the_protection_is_refused(world: World) -> None:
    """A connection that was checked out when the engine was protected runs nothing any more."""
    engine = create_engine(world.walled.app_url, pool_size=1, max_overflow=0)
    try:
        connection = engine.connect()
        protect_engine(engine)
        connection.close()
        with (
            pytest.raises(ConfigurationError, match="protected engine"),
            bound(engine, A) as session,
        ):
            seen(session)
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    "driver", ["sqlite", "postgresql+pg8000", "postgresql+psycopg2cffi", "postgresql+asyncpg"]
)
def test_other_drivers_are_refused(driver: str) -> None:
    """The guarantee is for PostgreSQL by psycopg2 or psycopg; nothing else is accepted."""
    with pytest.raises(ConfigurationError, match=re.escape(repr(driver))):
        create_tenant_engine(f"{driver}://localhost/none")


def test_engine_of_another_driver_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine of a driver that the layer does not know is refused by its name."""
    engine = create_engine("postgresql+psycopg2://localhost/none")
    monkeypatch.setattr(engine.dialect, "driver", "pg8000")
    with pytest.raises(ConfigurationError, match=r"postgresql\+asyncpg"):
        protect_engine(engine)
    engine.dispose()


def test_engine_of_another_database_is_refused() -> None:
    """`protect_engine` does not pretend to protect what it cannot."""
    engine = create_engine("sqlite://")
    with pytest.raises(ConfigurationError, match="psycopg2"):
        protect_engine(engine)
    engine.dispose()


def test_session_without_an_engine_is_given_none(world: World) -> None:
    """A tenant can be bound before the Session has an engine, and holds once it has one."""
    with Session() as session:
        set_tenant(session, A)
        with pytest.raises(InvalidRequestError):
            session.connection()
        with world.engine() as engine:
            session.bind = engine
            assert seen(session) == names_of("a")
            session.close()

"""After a lost backend, a restarted server or a failed write the next unit of work is as bound."""

from collections.abc import Iterator
from typing import get_args

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.exc import DBAPIError, OperationalError, PendingRollbackError
from sqlalchemy.orm import Session
from tests.conftest import Migrate
from tests.fixtures.drivers import backend_of
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    DRIVER_WALLS,
    WALLS,
    A,
    B,
    C,
    World,
    bound,
    cursor_of,
    names_of,
    new_world,
    seen,
)

from assay.models import TestSet
from tenantry import (
    ConfigurationError,
    DatabaseUnreachableError,
    MissingTenantError,
    TenancyError,
    get_tenant,
    set_tenant,
)
from tenantry.embedded import EmbeddedServer, Login
from tenantry.testing import Server

OWN_PREPARED = 8
# SQLAlchemy has two phases with psycopg2 and psycopg alone.
TWO_PHASE_WALLS = (*DATABASE_WALLS, *(w for w in DRIVER_WALLS if w.driver != "asyncpg"))


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """Return a server that this module may restart, with two-phase commit switched on."""
    server = EmbeddedServer(tmp_path_factory.mktemp("server"), durable=False)
    server.start()
    try:
        with cursor_of(server.url("superuser", "postgres")) as cursor:
            cursor.execute(f"alter system set max_prepared_transactions = {OWN_PREPARED}")
        restart(server)
        yield server
    finally:
        server.reset()


@pytest.fixture(scope="module")
def world(own_server: EmbeddedServer, tenantry_migrate: Migrate) -> Iterator[World]:
    """Return rows on the module's own server."""
    logins = {login: own_server.url(login, "postgres") for login in get_args(Login)}
    server = Server(
        name="embedded",
        version=own_server.version,
        superuser=True,
        logins=logins,
        _release=own_server.stop,
    )
    template = server.create_database()
    tenantry_migrate(template.owner_url, template.app_url)
    with new_world(server, template.name) as world:
        yield world


def restart(server: EmbeddedServer) -> None:
    """Stop and start the server on the port it had."""
    before = server.url()
    server.stop()
    server.start()
    assert server.url() == before


def kill(world: World, connection: Connection) -> None:
    """End the backend of a Connection, as an administrator would."""
    pid = backend_of(connection)
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute("select pg_terminate_backend(%s, 5000)", [pid])
        assert cursor.fetchone() == (True,)


def test_session_survives_a_terminated_backend(world: World, engine: Engine) -> None:
    """A backend that ends in mid-transaction takes its work along, not the Session's tenant."""
    with bound(engine, A) as session:
        session.add(TestSet(name="a-lost"))
        session.flush()
        kill(world, session.connection())
        with pytest.raises(DBAPIError) as caught:
            seen(session)
        assert caught.value.connection_invalidated
        session.rollback()
        assert seen(session) == names_of("a")
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
    with engine.connect() as connection:
        assert seen(connection) == set()


def test_session_survives_a_backend_terminated_before_commit(world: World, engine: Engine) -> None:
    """A commit that never reached the server raises, and nothing was written."""
    session = bound(engine, A)
    session.add(TestSet(name="a-lost"))
    session.flush()
    kill(world, session.connection())
    with pytest.raises(DBAPIError):
        session.commit()
    session.rollback()
    assert seen(session) == names_of("a")
    session.close()
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")


def test_connection_survives_a_terminated_backend(world: World, engine: Engine) -> None:
    """A Core Connection gets a new backend, and its tenant with it."""
    with engine.connect() as connection:
        for letter, tenant in (("a", A), ("b", B)):
            set_tenant(connection, tenant)
            assert seen(connection) == names_of(letter)
            kill(world, connection)
            with pytest.raises(DBAPIError) as caught:
                seen(connection)
            assert caught.value.connection_invalidated
            with pytest.raises(PendingRollbackError):
                seen(connection)
            connection.rollback()
            assert seen(connection) == names_of(letter)
            connection.commit()


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_connection_survives_a_backend_missed_at_begin(world: World, engine: Engine) -> None:
    """A Core Connection whose backend ended between two transactions recovers as well."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        kill(world, connection)
        with pytest.raises(DBAPIError):
            seen(connection)
        connection.rollback()
        assert seen(connection) == names_of("a")


@pytest.mark.parametrize("wall", [WALLS[1]], ids=str)
def test_refused_autocommit_stays_refused(engine: Engine) -> None:
    """A Connection in AUTOCOMMIT is refused its second statement as it was its first."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        set_tenant(connection, A)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
                seen(connection)


def test_backend_terminated_in_a_savepoint(world: World, engine: Engine) -> None:
    """A savepoint ends with its backend; the next transaction is whole again."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
        session.begin_nested()
        kill(world, session.connection())
        with pytest.raises(DBAPIError):
            seen(session)
        session.rollback()
        with session.begin_nested():
            assert seen(session) == names_of("a")


def test_backend_terminated_in_the_pool(world: World, engine: Engine) -> None:
    """A connection that died in the pool fails its next user once, as the right tenant then."""
    with bound(engine, A) as session:
        pid = backend_of(session.connection())
    with cursor_of(world.walled.superuser_url) as cursor:
        cursor.execute("select pg_terminate_backend(%s, 5000)", [pid])
    with bound(engine, B) as session:
        with pytest.raises(DBAPIError) as caught:
            seen(session)
        assert caught.value.connection_invalidated
        session.rollback()
        assert seen(session) == names_of("b")
    with engine.connect() as connection:
        assert seen(connection) == set()


def test_backend_terminated_before_a_late_tenant(world: World, engine: Engine) -> None:
    """A tenant that cannot be sent is not bound; bound again, the next transaction is its own."""
    with Session(engine) as session:
        session.execute(select(1))
        kill(world, session.connection())
        with pytest.raises(DBAPIError):
            set_tenant(session, A)
        session.rollback()
        assert get_tenant(session) is None
        set_tenant(session, A)
        assert seen(session) == names_of("a")
    with engine.connect() as connection:
        connection.execute(select(1))
        kill(world, connection)
        with pytest.raises(DBAPIError):
            set_tenant(connection, A)
        connection.rollback()
        assert get_tenant(connection) is None
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")


@pytest.mark.parametrize("wall", WALLS[:1], ids=str)
def test_lost_backend_is_told_as_sqlalchemy_tells_it(world: World, engine: Engine) -> None:
    """Whoever retries on OperationalError need not know that the layer was the first to notice."""
    with Session(engine) as session:
        session.execute(select(1))
        kill(world, session.connection())
        with pytest.raises(OperationalError, match="server closed the connection"):
            set_tenant(session, A)


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_backend_terminated_before_the_first_statement(world: World, engine: Engine) -> None:
    """A tenant that was bound and not yet sent stays bound, and the next transaction is its own."""
    with Session(engine) as session:
        kill(world, session.connection())
        with pytest.raises(OperationalError, match="server closed the connection"):  # noqa: PT012
            set_tenant(session, A)
            seen(session)
        session.rollback()
        set_tenant(session, A)
        assert seen(session) == names_of("a")


def test_tenant_cannot_be_bound_in_a_failed_transaction(world: World) -> None:
    """In a transaction that the server aborted, binding says so and binds nothing."""
    with world.engine() as engine, Session(engine) as session:
        with pytest.raises(DBAPIError):
            session.execute(text("select 1 / 0"))
        with pytest.raises(DBAPIError, match="aborted"):
            set_tenant(session, A)
        assert get_tenant(session) is None
        session.rollback()
        set_tenant(session, A)
        assert seen(session) == names_of("a")


@pytest.mark.parametrize("wall", [WALLS[0], WALLS[-1]], ids=str)
def test_restarted_server(own_server: EmbeddedServer, world: World, engine: Engine) -> None:
    """A server that restarts in mid-transaction brings nobody's tenant to anybody."""
    session = bound(engine, A)
    session.add(TestSet(name="a-lost"))
    session.flush()
    restart(own_server)
    with pytest.raises(DBAPIError):
        seen(session)
    session.rollback()
    assert seen(session) == names_of("a")
    session.close()
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
        session.commit()
        own_server.stop()
        try:
            with pytest.raises((DBAPIError, DatabaseUnreachableError)):
                seen(session)
            session.rollback()
            with pytest.raises(DatabaseUnreachableError) as caught:
                seen(session)
        finally:
            own_server.start()
        assert str(engine.url.password) not in str(caught.value)
        session.rollback()
        assert seen(session) == names_of("b")


@pytest.mark.parametrize("wall", TWO_PHASE_WALLS, ids=str)
def test_two_phase_session_runs_for_its_tenant(engine: Engine) -> None:
    """Both phases of a two-phase Session run for its tenant, and the next one for the next."""
    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant, twophase=True) as session:
            assert seen(session) == names_of(letter)
            session.prepare()
            session.commit()
            assert seen(session) == names_of(letter)
            session.rollback()
            assert seen(session) == names_of(letter)
    with Session(engine, twophase=True) as session:
        with pytest.raises(MissingTenantError):
            session.scalars(select(TestSet)).all()
        assert seen(session.connection()) == set()


@pytest.mark.parametrize("wall", TWO_PHASE_WALLS, ids=str)
def test_two_phase_connection_runs_for_its_tenant(engine: Engine) -> None:
    """The tenant is told to a two-phase transaction by its first statement."""
    with engine.connect() as connection:
        for letter, tenant in (("a", A), ("b", B), ("c", C)):
            set_tenant(connection, tenant)
            transaction = connection.begin_twophase()
            assert seen(connection) == names_of(letter)
            transaction.prepare()
            transaction.commit()
            transaction = connection.begin_twophase()
            assert seen(connection) == names_of(letter)
            transaction.rollback()
            transaction = connection.begin_twophase()
            nested = connection.begin_nested()
            assert seen(connection) == names_of(letter)
            nested.rollback()
            assert seen(connection) == names_of(letter)
            transaction.rollback()


def test_interrupted_flush_leaves_nothing(engine: Engine) -> None:
    """A flush that fails on its second row leaves no first one, nor another tenant."""
    with bound(engine, A) as session:
        session.add_all([TestSet(name="a-lost"), TestSet(name="a1")])
        with pytest.raises((DBAPIError, TenancyError), match="uq_test_sets"):
            session.flush()
        session.rollback()
        assert seen(session) == names_of("a")
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")

"""Behind a real PgBouncer that pools by transaction nothing passes from client to client."""

import contextlib
from collections.abc import Iterator
from typing import Protocol, cast

import pytest
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from tests.conftest import PgBouncer
from tests.fixtures.worlds import WAYS, A, B, C, World, bound, names_of, seen

from assay.models import TestSet
from tenantry import (
    ConfigurationError,
    Isolation,
    TenancyConfig,
    create_tenant_engine,
    set_tenant,
)
from tenantry.admission import Admission
from tenantry.config import Scope
from tenantry.database import TENANCY_OPTION, Tenancy, connection_state


@pytest.fixture
def pooled_url(world: World, pgbouncer: PgBouncer) -> URL:
    """Return the application's URL through a pooler with one server connection."""
    return pgbouncer(world.walled.app_url, pool_size=1)


class Client(Protocol):
    """Open an engine with one connection to the pooler: a client of its own."""

    def __call__(
        self, url: URL, scope: Scope = "auto"
    ) -> contextlib.AbstractContextManager[Engine]:
        """Return the engine, to be disposed of in the end."""


@pytest.fixture(params=WAYS)
def client(request: pytest.FixtureRequest) -> Client:
    """Return what opens clients, which send the tenant each way in turn."""

    @contextlib.contextmanager
    def open_client(url: URL, scope: Scope = "auto") -> Iterator[Engine]:
        engine = create_tenant_engine(
            url, mode="database", scope=scope, context=request.param, pool_size=1, max_overflow=0
        )
        try:
            yield engine
        finally:
            engine.dispose()

    return open_client


def isolation_of(connection: Connection) -> Isolation:
    """Return what the probe found on the Connection."""
    return connection_state(connection).isolation


def backend(target: Session | Connection) -> int:
    """Return the process that serves this transaction."""
    return cast("int", target.execute(text("select pg_backend_pid()")).scalar_one())


def test_pooler_is_recognised(client: Client, world: World, pooled_url: URL) -> None:
    """The scope is chosen by itself: of the transaction behind a pooler, of the session without."""
    with client(pooled_url) as engine, engine.connect() as connection:
        assert isolation_of(connection).pooled
        assert connection_state(connection).local
    with client(world.walled.app_url) as engine, engine.connect() as connection:
        assert not isolation_of(connection).pooled
        assert not connection_state(connection).local


def test_session_pooler_is_recognised_or_harmless(
    client: Client, world: World, pgbouncer: PgBouncer
) -> None:
    """A pooler that keeps a backend per client leaks nothing from one client to the next."""
    url = pgbouncer(world.walled.app_url, pool_size=1, pool_mode="session")
    for letter, tenant in (("a", A), ("b", B)):
        with client(url) as engine, bound(engine, tenant) as session:
            assert seen(session) == names_of(letter)
            session.commit()
        with client(url) as engine, engine.connect() as connection:
            assert seen(connection) == set()


def test_clients_in_turn_see_their_own_rows(client: Client, pooled_url: URL) -> None:
    """Two clients that share one server connection by turns see their own tenant's rows."""
    with client(pooled_url) as first, client(pooled_url) as second:
        with bound(first, A) as one, bound(second, B) as two:
            backends: set[int] = set()
            for end in ("commit", "rollback", "commit", "rollback"):
                assert seen(one) == names_of("a")
                backends.add(backend(one))
                getattr(one, end)()
                assert seen(two) == names_of("b")
                backends.add(backend(two))
                getattr(two, end)()
        assert len(backends) == 1
        with second.connect() as connection:
            assert seen(connection) == set()


def test_client_without_tenant_sees_nothing(client: Client, pooled_url: URL) -> None:
    """After A's client committed or rolled back, one without a tenant reads no row."""
    with client(pooled_url) as first, client(pooled_url) as second:
        for end in ("commit", "rollback"):
            with bound(first, A) as session:
                assert seen(session) == names_of("a")
                getattr(session, end)()
            with second.connect() as connection:
                assert seen(connection) == set()
            with contextlib.closing(second.raw_connection()) as raw:
                cursor = raw.cursor()
                cursor.execute("select name from test_sets")
                assert cursor.fetchall() == []


def test_transactions_in_turn_on_one_connection(client: Client, pooled_url: URL) -> None:
    """Core transactions, each for another tenant, see one tenant each behind the pooler."""
    with client(pooled_url) as engine, engine.connect() as connection:
        for letter, tenant in (("a", A), ("b", B), ("c", C), ("a", A)):
            set_tenant(connection, tenant)
            nested = connection.begin_nested()
            assert seen(connection) == names_of(letter)
            nested.rollback()
            assert seen(connection) == names_of(letter)
            connection.commit()


def test_rows_are_streamed_within_the_transaction(client: Client, pooled_url: URL) -> None:
    """A server-side cursor lives in its transaction, and so does its tenant."""
    statement = select(TestSet.name).execution_options(stream_results=True, yield_per=1)
    with client(pooled_url) as engine:
        for letter, tenant in (("a", A), ("b", B)):
            with bound(engine, tenant) as session:
                assert set(session.scalars(statement)) == names_of(letter)


def test_another_clients_session_setting_does_not_count(client: Client, pooled_url: URL) -> None:
    """What a careless client left set on the server connection is overwritten."""
    config = TenancyConfig()
    careless = create_engine(pooled_url)
    with client(pooled_url) as engine:
        with bound(engine, B) as session:
            assert seen(session) == names_of("b")
        with careless.begin() as connection:
            leave = text("select set_config(:setting, :value, false)")
            connection.execute(leave, {"setting": config.organization_setting, "value": str(A)})
        with bound(engine, B) as session:
            assert seen(session) == names_of("b")
        with engine.connect() as connection:
            assert seen(connection) == set()
    careless.dispose()


def test_autocommit_is_refused(client: Client, pooled_url: URL) -> None:
    """Without a transaction there is nothing that the tenant could be set for."""
    with client(pooled_url) as engine:
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        with (
            bound(autocommit, A) as session,
            pytest.raises(ConfigurationError, match="AUTOCOMMIT"),
        ):
            seen(session)


def test_session_scope_is_refused(client: Client, pooled_url: URL) -> None:
    """A setting of the session would reach other clients, so asking for it is an error."""
    with (
        client(pooled_url, "session") as engine,
        pytest.raises(ConfigurationError, match="pooler"),
        engine.connect(),
    ):
        pytest.fail("the connection was handed out")


def test_session_scope_behind_the_pooler_does_leak(
    client: Client, pooled_url: URL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the pooler were not recognised, one client would read the other's rows: tests can fail."""
    choose = Admission.choose

    def unrecognised(admission: Admission, driver: object, isolation: Isolation) -> object:
        values = {name: getattr(isolation, name) for name in Isolation.__slots__}
        return choose(admission, driver, Isolation(**values | {"pooled": False}))

    monkeypatch.setattr(Admission, "choose", unrecognised)
    with client(pooled_url) as first, client(pooled_url) as second:
        with second.connect() as connection:
            assert isinstance(connection.get_execution_options()[TENANCY_OPTION], Tenancy)
            assert not connection_state(connection).local
        raw = second.raw_connection()
        with first.connect() as connection:
            set_tenant(connection, A)
            assert seen(connection) == names_of("a")
            connection.commit()
            cursor = raw.cursor()
            cursor.execute("select name from test_sets")
            assert {name for (name,) in cursor.fetchall()} == names_of("a")
            raw.rollback()
        raw.close()

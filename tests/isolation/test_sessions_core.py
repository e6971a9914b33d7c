"""A Core Connection runs each of its transactions for the tenant bound to it then."""

import pytest
from sqlalchemy import Connection, Engine, select, text
from sqlalchemy.orm import Session
from tests.fixtures import session_checks
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    WALLS,
    A,
    B,
    C,
    Wall,
    bound,
    names_of,
    seen,
)

from assay.models import TestSet
from tenantry import (
    ConfigurationError,
    TenantSwitchError,
    UnfilterableStatementError,
    clear_tenant,
    get_tenant,
    set_tenant,
)

LETTERS = (("a", A), ("b", B), ("c", C), ("a", A))


def test_one_checkout_serves_tenants_in_turn(engine: Engine) -> None:
    """Several transactions of one Connection, each for another tenant, see one tenant each."""
    session_checks.check_transactions_in_turn(engine)


def test_explicit_begin_runs_for_the_bound_tenant(engine: Engine) -> None:
    """`begin()` is no different from the transaction that the first statement begins."""
    with engine.connect() as connection:
        for letter, tenant in LETTERS:
            set_tenant(connection, tenant)
            with connection.begin():
                assert seen(connection) == names_of(letter)
        clear_tenant(connection)
        with connection.begin():
            assert seen(connection) == set()


def test_tenant_bound_in_open_transaction_counts_at_once(engine: Engine) -> None:
    """A Connection without a tenant may be given one in mid-transaction."""
    with engine.begin() as connection:
        assert seen(connection) == set()
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")


def test_switch_in_open_transaction_is_refused(engine: Engine) -> None:
    """In a transaction for A a Connection cannot become B's, nor nobody's."""
    with engine.connect() as connection:
        tenant = set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        with pytest.raises(TenantSwitchError, match="in a transaction"):
            set_tenant(connection, B)
        with pytest.raises(TenantSwitchError, match="in a transaction"):
            clear_tenant(connection)
        assert get_tenant(connection) == tenant
        assert seen(connection) == names_of("a")


def test_savepoint_keeps_the_tenant(engine: Engine) -> None:
    """Rolling back to a savepoint leaves the tenant, and inside it no other can be bound."""
    with engine.connect() as connection:
        assert seen(connection) == set()
        nested = connection.begin_nested()
        with pytest.raises(TenantSwitchError, match="savepoint"):
            set_tenant(connection, A)
        nested.rollback()
        assert seen(connection) == set()
        set_tenant(connection, A)
        nested = connection.begin_nested()
        assert seen(connection) == names_of("a")
        nested.rollback()
        assert seen(connection) == names_of("a")
        with connection.begin_nested():
            assert seen(connection) == names_of("a")
        assert seen(connection) == names_of("a")


def test_connection_without_tenant_sees_nothing(engine: Engine) -> None:
    """Core has no row to show before a tenant is bound, and none after it left with the pool."""
    with engine.connect() as connection:
        assert seen(connection) == set()
        connection.commit()
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
    with engine.connect() as connection:
        assert get_tenant(connection) is None
        assert seen(connection) == set()


def test_execution_options_keep_the_tenant(engine: Engine) -> None:
    """Other execution options neither drop the tenant nor carry it to another Connection."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        connection = connection.execution_options(logging_token="one", stream_results=True)
        assert seen(connection) == names_of("a")
    with engine.execution_options(logging_token="two").connect() as connection:
        assert seen(connection) == set()
        connection.rollback()
        set_tenant(connection, B)
        assert seen(connection) == names_of("b")


def test_isolation_level_keeps_the_tenant(engine: Engine) -> None:
    """A stricter isolation level changes nothing about whose transaction it is."""
    with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
        for letter, tenant in LETTERS:
            set_tenant(connection, tenant)
            assert seen(connection) == names_of(letter)
            connection.commit()


def test_streamed_rows_are_the_tenants(engine: Engine) -> None:
    """Server-side cursors and `yield_per` return the bound tenant's rows alone."""
    statement = select(TestSet.name).execution_options(stream_results=True, yield_per=1)
    with bound(engine, A) as session:
        assert set(session.scalars(statement)) == names_of("a")
        half_read = session.scalars(statement)
        assert next(half_read) in names_of("a")
    with bound(engine, B) as session:
        assert set(session.scalars(statement)) == names_of("b")
    with engine.connect() as connection:
        set_tenant(connection, C)
        assert set(connection.scalars(statement)) == names_of("c")


@pytest.mark.parametrize("wall", [w for w in WALLS if w.scope == "session"], ids=str)
def test_autocommit_runs_for_the_bound_tenant(engine: Engine) -> None:
    """With a setting of the session, statements in AUTOCOMMIT see the bound tenant's rows."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for letter, tenant in LETTERS:
            set_tenant(connection, tenant)
            assert seen(connection) == names_of(letter)
            assert seen(connection) == names_of(letter)
            connection.commit()
        clear_tenant(connection)
        assert seen(connection) == set()
    with engine.connect() as connection:
        assert seen(connection) == set()


@pytest.mark.parametrize("wall", [w for w in WALLS if w.scope == "session"], ids=str)
def test_autocommit_session_runs_for_the_bound_tenant(engine: Engine) -> None:
    """A Session on an engine in AUTOCOMMIT is confined too, and leaves nothing behind."""
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    for letter, tenant in LETTERS:
        with bound(autocommit, tenant) as session:
            assert seen(session) == names_of(letter)
            session.rollback()
            assert seen(session) == names_of(letter)
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")


@pytest.mark.parametrize("wall", [w for w in WALLS if w.scope == "transaction"], ids=str)
def test_autocommit_is_refused_with_transaction_scope(engine: Engine) -> None:
    """A setting that ends with its transaction cannot carry a tenant where there is none."""
    autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
    with autocommit.connect() as connection:
        set_tenant(connection, A)
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            seen(connection)
    with bound(autocommit, A) as session, pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
        seen(session)
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")


@pytest.mark.parametrize("wall", [w for w in WALLS if w.mode == "filters"], ids=str)
def test_text_is_refused_where_filters_are_the_only_wall(engine: Engine) -> None:
    """SQL text cannot be filtered, so nothing of it is executed."""
    with bound(engine, A) as session:
        with pytest.raises(UnfilterableStatementError):
            session.execute(text("select name from test_sets"))
        with pytest.raises(UnfilterableStatementError):
            session.connection().exec_driver_sql("select name from test_sets")
        assert seen(session) == names_of("a")


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_driver_cursor_in_the_transaction_is_the_tenants(engine: Engine) -> None:
    """A cursor of the driver, taken from a Connection in a transaction, runs for its tenant."""
    with engine.connect() as connection:
        for letter, tenant in LETTERS:
            set_tenant(connection, tenant)
            with connection.begin():
                assert driver_reads(connection) == names_of(letter)


@pytest.mark.parametrize("wall", DATABASE_WALLS[:1], ids=str)
def test_driver_cursor_before_the_transaction_is_not_the_last_tenants(
    engine: Engine, wall: Wall
) -> None:
    """After another tenant is bound, a driver's cursor no longer sees the last one's rows."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.commit()
        set_tenant(connection, B)
        assert not driver_reads(connection) & names_of("a")


@pytest.mark.parametrize("wall", DATABASE_WALLS[:1], ids=str)
def test_driver_cursor_after_clear_tenant_sees_nothing(engine: Engine, wall: Wall) -> None:
    """After `clear_tenant` a driver's cursor on the same Connection is nobody's."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.commit()
        clear_tenant(connection)
        assert driver_reads(connection) == set()


@pytest.mark.parametrize("wall", DATABASE_WALLS[:1], ids=str)
def test_transaction_ended_in_text_brings_no_earlier_tenant_back(
    engine: Engine, wall: Wall
) -> None:
    """ROLLBACK written by hand reverts the setting, but not to an earlier tenant's."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        connection.commit()
        set_tenant(connection, B)
        assert seen(connection) == names_of("b")
        connection.exec_driver_sql("rollback")
        assert not seen(connection) & names_of("a")


def test_detached_connection_keeps_its_guarantee(engine: Engine) -> None:
    """A Connection that left the pool for good still runs for the tenant bound to it."""
    with engine.connect() as connection:
        connection.detach()
        for letter, tenant in LETTERS:
            set_tenant(connection, tenant)
            assert seen(connection) == names_of(letter)
            connection.commit()


def test_session_connection_belongs_to_the_session(engine: Engine) -> None:
    """Core statements on a Session's own Connection run for the Session's tenant."""
    with bound(engine, A) as session:
        connection = session.connection()
        assert seen(connection) == names_of("a")
        assert get_tenant(connection) is None
        session.commit()
    with Session(engine) as session:
        assert seen(session.connection()) == set()


def driver_reads(connection: Connection) -> set[str]:
    """Return the names that a cursor of the driver reads, past SQLAlchemy."""
    cursor = connection.connection.cursor()
    cursor.execute("select name from test_sets")
    names = {name for (name,) in cursor.fetchall()}
    cursor.close()
    return names

"""A driver whose BEGIN and context travel with the first query behaves as it always does."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import pytest
from psycopg2 import errors
from sqlalchemy import Engine, select, text
from sqlalchemy.exc import DBAPIError
from tests.fixtures.messages import after_a, direct, fetched
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    A,
    B,
    Wall,
    World,
    bound,
    cursor_of,
    names_of,
    new_world,
    seen,
)

from assay.models import TestSet
from tenantry import ConfigurationError
from tenantry.testing import Server


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows of this module, where the application may have large objects."""
    with new_world(tenantry_server, tenantry_template) as world:
        with cursor_of(world.walled.superuser_url) as cursor:
            cursor.execute(
                "grant execute on function lo_creat(integer), lo_open(oid, integer), "
                "lo_close(integer) to public"
            )
        yield world


@pytest.fixture(params=DATABASE_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each way in each scope."""
    wall: Wall = request.param
    return wall


def test_raw_commit_and_rollback_leave_the_tenant_bound(engine: Engine) -> None:
    """After a commit behind its back the Connection's next statement is as bound."""
    with after_a(engine) as (connection, driver):
        for end in (driver.commit, driver.rollback, driver.reset):
            assert seen(connection) == names_of("b")
            end()
        assert seen(connection) == names_of("b")


def test_failed_first_statement_leaves_a_failed_transaction(engine: Engine) -> None:
    """What cannot be read, or executed, aborts its transaction; the next one is for its tenant."""
    for broken in ("selec 1", "select nothing", "select 1 / 0", "select 'unfinished"):
        with after_a(engine) as (connection, driver):
            with pytest.raises(DBAPIError):
                connection.exec_driver_sql(broken)
            assert driver.status == psycopg2.extensions.STATUS_BEGIN
            assert driver.info.transaction_status == psycopg2.extensions.TRANSACTION_STATUS_INERROR
            for cursor in (driver.cursor(), psycopg2.extensions.cursor(driver)):
                with pytest.raises(errors.InFailedSqlTransaction):
                    fetched(cursor)
            connection.rollback()
            assert seen(connection) == names_of("b")


def test_first_statement_that_is_not_sent_is_not_a_transaction(engine: Engine) -> None:
    """What the driver cannot render it does not send, and what follows is for the tenant."""
    with after_a(engine) as (connection, driver):
        with pytest.raises(IndexError):
            driver.cursor().execute("select %s, %s", ("one",))
        for empty in ("", "  ", "-- nothing", "/* nothing */"):
            with pytest.raises(psycopg2.ProgrammingError, match="empty query"):
                driver.cursor().execute(empty)
            driver.rollback()
        assert seen(connection) == names_of("b")


def test_cancelled_first_statement_brings_nothing_back(engine: Engine) -> None:
    """A statement that is cancelled has told the server nothing that lasts."""
    with after_a(engine) as (connection, driver):
        over = threading.Event()

        def cancel() -> None:
            # It may be early: a statement that the server does not have yet is not cancelled.
            while not over.wait(0.1):
                driver.cancel()

        canceller = threading.Thread(target=cancel)
        canceller.start()
        try:
            with pytest.raises(DBAPIError, match="canceling"):
                connection.execute(text("select pg_sleep(100)"))
        finally:
            over.set()
            canceller.join()
        with pytest.raises(DBAPIError):
            seen(connection)
        connection.rollback()
        assert direct(driver) in (set(), names_of("b"))
        driver.rollback()
        assert seen(connection) == names_of("b")


def test_savepoint_may_come_first(engine: Engine) -> None:
    """A savepoint before anything else, rolled back or not, leaves the tenant in place."""
    with after_a(engine) as (connection, driver):
        with connection.begin_nested() as savepoint:
            assert seen(connection) == names_of("b")
            savepoint.rollback()
        assert fetched(driver.cursor()) == names_of("b")
        with pytest.raises(DBAPIError), connection.begin_nested():
            connection.execute(text("select 1 / 0"))
        assert fetched(driver.cursor()) == names_of("b")


def test_streamed_rows_are_the_tenants_before_and_after_others(engine: Engine) -> None:
    """A server-side cursor may come first, or in the midst, and is read to its end."""
    streamed = select(TestSet.name).execution_options(stream_results=True, yield_per=1)
    for first in (True, False):
        with bound(engine, A) as session, bound(engine, A) as _:
            if not first:
                assert seen(session) == names_of("a")
            assert set(session.scalars(streamed)) == names_of("a")
            assert session.connection().connection.dbapi_connection.notices == []  # type: ignore[union-attr]
            session.commit()
        with bound(engine, B) as session:
            assert set(session.scalars(streamed)) == names_of("b")
            session.rollback()
            assert seen(session) == names_of("b")


def test_large_object_belongs_to_the_transaction(engine: Engine) -> None:
    """A large object may come first, or in the midst; it goes with a rollback."""
    with after_a(engine) as (connection, driver):
        for first in (True, False):
            if not first:
                assert seen(connection) == names_of("b")
            number = driver.lobject(0, "wb").oid
            assert seen(connection) == names_of("b")
            connection.rollback()
            connection.begin()
            query = "select count(*)::text from pg_largeobject_metadata where oid = %s"
            assert fetched(driver.cursor(), query, (number,)) == {"0"}
            connection.rollback()
            connection.begin()


def test_driver_refuses_inside_a_transaction_what_it_always_does(engine: Engine) -> None:
    """Inside a transaction its characteristics cannot be changed, and it tells what it is in."""
    with after_a(engine) as (connection, driver):
        assert seen(connection) == names_of("b")
        assert driver.status == psycopg2.extensions.STATUS_BEGIN
        assert driver.get_transaction_status() == psycopg2.extensions.TRANSACTION_STATUS_INTRANS
        assert (driver.autocommit, driver.isolation_level) == (False, None)
        for name, value in (
            ("autocommit", True),
            ("isolation_level", "SERIALIZABLE"),
            ("readonly", True),
            ("deferrable", True),
        ):
            with pytest.raises(psycopg2.ProgrammingError, match="inside a transaction"):
                setattr(driver, name, value)
        with pytest.raises(psycopg2.ProgrammingError, match="inside a transaction"):
            driver.set_session(readonly=True)
        with pytest.raises(psycopg2.ProgrammingError):
            driver.tpc_begin(driver.xid(1, "a", "b"))
        assert seen(connection) == names_of("b")
        connection.commit()
        driver.set_session(isolation_level="SERIALIZABLE", readonly=True)
        assert fetched(driver.cursor(), "show transaction_isolation") == {"serializable"}
        assert fetched(driver.cursor(), "show transaction_read_only") == {"on"}
        driver.rollback()
        driver.set_session(isolation_level="DEFAULT", readonly="DEFAULT")
        driver.set_client_encoding("UTF8")
        assert seen(connection) == names_of("b")


@pytest.mark.parametrize("wall", [w for w in DATABASE_WALLS if w.context != "separate"], ids=str)
def test_autocommit_that_is_set_behind_the_back_shows_no_other_tenant(
    engine: Engine, wall: Wall
) -> None:
    """A driver that is put into autocommit after the begin reads for the tenant, or refuses."""
    with after_a(engine) as (connection, driver):
        driver.autocommit = True
        for _ in range(2):
            try:
                rows = fetched(driver.cursor())
            except ConfigurationError:
                assert wall.scope == "transaction"
                rows = set()
            assert rows in (set(), names_of("b"))
            with contextlib.suppress(ConfigurationError):
                assert seen(connection) in (set(), names_of("b"))
        driver.autocommit = False


def test_threads_that_share_a_connection_read_for_its_tenant(engine: Engine) -> None:
    """Two cursors whose first statements race are both in the one transaction, and bound."""
    for _ in range(20):
        with after_a(engine) as (connection, driver):
            with ThreadPoolExecutor(3) as pool:
                found = list(pool.map(fetched, [driver.cursor() for _ in range(3)]))
            assert found == [names_of("b")] * 3
            assert driver.notices == []
            connection.rollback()


def test_green_driver_carries_the_context_too(engine: Engine) -> None:
    """With a wait callback, as gevent sets one, each way works as without."""
    psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
    try:
        with after_a(engine) as (connection, driver):
            assert fetched(driver.cursor()) == names_of("b")
            connection.commit()
            with pytest.raises(DBAPIError):
                connection.exec_driver_sql("selec 1")
            connection.rollback()
            assert seen(connection) == names_of("b")
    finally:
        psycopg2.extensions.set_wait_callback(None)


@pytest.mark.parametrize("pending", [True, False])
def test_generator_that_is_left_midway_leaves_no_tenant(engine: Engine, pending: bool) -> None:
    """Rows that were being read when their Session was closed are nobody's afterwards."""
    session = bound(engine, A)
    if not pending:
        assert seen(session) == names_of("a")
    rows = session.scalars(select(TestSet.name).execution_options(stream_results=True))
    assert next(rows) in names_of("a")
    session.close()
    with engine.connect() as connection:
        driver: Any = connection.connection.dbapi_connection
        assert direct(driver) == set()
        assert fetched(driver.cursor()) == set()

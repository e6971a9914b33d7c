"""Whatever goes past SQLAlchemy to psycopg 3 or asyncpg finds the transaction's tenant, or none."""

import contextlib
from functools import partial
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.fixtures.drivers import Raw
from tests.fixtures.worlds import (
    DRIVER_WALLS,
    A,
    B,
    Wall,
    bound,
    names_of,
    seen,
)

from assay.models import TestSet
from tenantry import ConfigurationError, set_tenant

PSYCOPG = [wall for wall in DRIVER_WALLS if wall.driver == "psycopg"]
PSYCOPGS = [wall for wall in DRIVER_WALLS if wall.driver != "asyncpg"]
ASYNCPG = [wall for wall in DRIVER_WALLS if wall.driver == "asyncpg"]

SETTING = "select current_setting('app.current_organization', true)"


@pytest.fixture(params=DRIVER_WALLS, ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each driver in turn."""
    wall: Wall = request.param
    return wall


def raw_of(session: Session) -> Raw:
    """Return the driver's connection of the Session's transaction."""
    return Raw(session.connection().connection)


def begun_of(session: Session) -> Raw:
    """Return it in a transaction that has begun on the server, as asyncpg does not by itself."""
    session.execute(select(1))
    return raw_of(session)


def test_driver_reads_for_the_tenant_of_the_transaction(engine: Engine) -> None:
    """Past SQLAlchemy a transaction is its tenant's too, the next one the next tenant's."""
    for letter, tenant in (("a", A), ("b", B), ("a", A)):
        with bound(engine, tenant) as session:
            assert begun_of(session).names() == names_of(letter)
            session.commit()
            assert begun_of(session).names() == names_of(letter)
            session.rollback()


def check_outside(engine: Engine) -> None:
    """Look past SQLAlchemy, outside of its transactions, before and after those of A's."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        raw = Raw(connection.connection)
        assert raw.names() == set()
        if not raw.is_asyncpg:
            raw.adapted.rollback()
        for end in (connection.commit, connection.rollback):
            assert seen(connection) == names_of("a")
            end()
            assert raw.names() == set()
            raw.adapted.rollback()


def test_driver_finds_no_tenant_outside_of_transactions(engine: Engine) -> None:
    """After a commit or a rollback, and before a begin, the driver's connection is nobody's."""
    check_outside(engine)


def test_raw_connection_is_nobodys(engine: Engine) -> None:
    """A connection taken from the pool past SQLAlchemy's transactions sees no tenant."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
    with contextlib.closing(engine.raw_connection()) as pooled:
        raw = Raw(pooled)
        assert raw.names() == set()
        raw.adapted.rollback()
        assert raw.in_block(raw.names) == set()


def test_blocks_of_the_driver_are_the_tenants(engine: Engine) -> None:
    """`transaction()` of the driver, nested or first of all, runs for the Session's tenant."""
    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant) as session:
            raw = raw_of(session)
            for _ in range(2):
                assert raw.in_block(raw.names) == names_of(letter)
                assert raw.in_block(partial(raw.in_block, raw.names)) == names_of(letter)
            assert seen(session) == names_of(letter)
            assert raw.in_block(raw.names) == names_of(letter)
            session.commit()


def test_failed_block_of_the_driver_leaves_the_tenant_in_place(engine: Engine) -> None:
    """An error that ends an inner block does not end, nor change, whose the transaction is."""
    with bound(engine, A) as session:
        raw = begun_of(session)
        with pytest.raises(Exception, match="division by zero"):
            raw.in_block(lambda: raw.column("select 1 / 0"))
        assert raw.names() == names_of("a")
        assert seen(session) == names_of("a")


def test_rows_are_written_for_the_tenant(engine: Engine) -> None:
    """One row, several in one message, several by executemany and one past SQLAlchemy are A's."""
    with bound(engine, A) as session:
        session.add(TestSet(name="a one"))
        session.flush()
        session.execute(insert(TestSet), [{"name": "a two"}, {"name": "a three"}])
        session.execute(
            text("insert into test_sets (name) values (:name)"),
            [{"name": "a four"}, {"name": "a five"}],
        )
        raw_of(session).execute("insert into test_sets (name) values ('a six')")
        owners = select(TestSet.organization_id, func.count()).group_by(TestSet.organization_id)
        assert session.execute(owners).all() == [(A, 8)]
        session.rollback()


def test_row_for_another_tenant_is_refused(engine: Engine) -> None:
    """No way of writing files a row under B in A's transaction."""
    planted = f"insert into test_sets (organization_id, name) values ('{B}', 'planted')"
    with bound(engine, A) as session:
        with pytest.raises(Exception, match="row-level security"):
            begun_of(session).execute(planted)
        session.rollback()
        rows = [{"id": str(B), "name": name} for name in ("planted", "planted too")]
        statement = (
            "insert into test_sets (organization_id, name) values (cast(:id as uuid), :name)"
        )
        with pytest.raises(DBAPIError, match="row-level security"):
            session.execute(text(statement), rows)
        session.rollback()
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")


@pytest.mark.parametrize("wall", PSYCOPGS, ids=str)
def test_copy_is_the_tenants(engine: Engine) -> None:
    """COPY as the first command of a transaction reads its tenant's rows."""
    command = "copy (select name from test_sets) to stdout"

    async def copied(driver: Any) -> set[str]:
        async with driver.cursor().copy(command) as copy:
            return {row[0] async for row in copy.rows()}

    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant) as session:
            raw = raw_of(session)
            if raw.asynchronous:
                assert raw.awaited(copied) == names_of(letter)
            else:
                with raw.driver.cursor().copy(command) as copy:
                    assert {row[0] for row in copy.rows()} == names_of(letter)


@pytest.mark.parametrize("wall", ASYNCPG, ids=str)
def test_copy_of_asyncpg_is_the_tenants(engine: Engine) -> None:
    """COPY reads the tenant's rows in a transaction, and none outside of one."""

    async def copied(driver: Any) -> set[str]:
        chunks: list[bytes] = []

        async def keep(chunk: bytes) -> None:
            chunks.append(chunk)

        await driver.copy_from_query("select name from test_sets", output=keep)
        return set(b"".join(chunks).decode().split())

    with bound(engine, A) as session:
        assert raw_of(session).awaited(copied) == set()
        assert begun_of(session).awaited(copied) == names_of("a")


@pytest.mark.parametrize("wall", PSYCOPG, ids=str)
def test_cursors_of_psycopg_are_the_tenants(engine: Engine) -> None:
    """Server-side, streaming, client-side binding and own cursors begin with the tenant."""
    query = "select name from test_sets"
    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant) as session:
            driver = raw_of(session).driver
            with driver.cursor("named") as cursor:
                assert {row[0] for row in cursor.execute(query)} == names_of(letter)
            driver.rollback()
            assert {row[0] for row in driver.cursor().stream(query)} == names_of(letter)
            driver.rollback()
            for factory in (psycopg.ClientCursor, psycopg.RawCursor, psycopg.Cursor):
                assert {row[0] for row in factory(driver).execute(query)} == names_of(letter)
                driver.rollback()
            cursor = driver.cursor()
            cursor.executemany(
                "select name from test_sets where name like %s", [["%1"], ["%2"]], returning=True
            )
            found = {row[0] for row in cursor.fetchall()}
            while cursor.nextset():
                found |= {row[0] for row in cursor.fetchall()}
            assert found == names_of(letter)


@pytest.mark.parametrize("wall", PSYCOPGS, ids=str)
def test_pipelines_are_the_tenants(engine: Engine) -> None:
    """In pipeline mode the context is a command of the pipeline, with each BEGIN in it."""
    query = "select name from test_sets"

    async def piped(driver: Any) -> list[set[str]]:
        async with driver.pipeline():
            first = await driver.execute(query)
            second = await driver.execute(query)
            await driver.commit()
            third = await driver.execute(query)
        return [{row[0] for row in await c.fetchall()} for c in (first, second, third)]

    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant) as session:
            raw = raw_of(session)
            if raw.asynchronous:
                found = raw.awaited(piped)
            else:
                with raw.driver.pipeline():
                    cursors = [raw.driver.execute(query), raw.driver.execute(query)]
                    raw.driver.commit()
                    cursors.append(raw.driver.execute(query))
                found = [{row[0] for row in cursor} for cursor in cursors]
            assert found == [names_of(letter)] * 3
            session.rollback()


def test_statement_after_a_written_commit_is_the_tenants_or_nobodys(engine: Engine) -> None:
    """`commit`, `rollback` and their `and chain` as text do not leave another tenant's context."""
    for letter, tenant in (("a", A), ("b", B)):
        for command in ("commit", "rollback", "commit and chain", "rollback and chain"):
            with bound(engine, tenant) as session:
                raw = begun_of(session)
                raw.execute(command)
                assert raw.names() <= names_of(letter)
                session.rollback()
            with bound(engine, tenant) as session:
                assert seen(session) == names_of(letter)
                session.execute(text(command))
                assert seen(session) <= names_of(letter)
                session.rollback()
            with engine.connect() as connection:
                assert seen(connection) == set()


def test_transaction_begun_by_hand_is_the_tenants_or_nobodys(engine: Engine) -> None:
    """A BEGIN that the application writes, in its own autocommit, has its tenant or none."""
    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant) as session:
            raw = raw_of(session)
            if not raw.is_asyncpg:
                raw.adapted.set_autocommit(True)
            for begin in ("begin", "start transaction", "begin read only;", "begin -- ;"):
                raw.execute(begin)
                assert raw.names() <= names_of(letter)
                raw.execute("rollback")
                assert raw.names() == set()
            if not raw.is_asyncpg:
                raw.adapted.set_autocommit(False)
            assert seen(session) == names_of(letter)


def test_autocommit_is_refused(engine: Engine) -> None:
    """What has no transaction has no BEGIN that could carry a tenant."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        set_tenant(connection, A)
        with pytest.raises(ConfigurationError, match="AUTOCOMMIT"):
            seen(connection)
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")


def test_setting_of_the_session_is_overwritten(engine: Engine) -> None:
    """What A's code left set for the session is not what anybody else's transactions run with."""
    with bound(engine, A) as session:
        raw_of(session).column(f"select set_config('app.current_organization', '{A}', false)")
        session.commit()
        raw_of(session).column(f"select set_config('app.current_organization', '{A}', false)")
        session.rollback()
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
    with engine.connect() as connection:
        assert seen(connection) == set()
    with contextlib.closing(engine.raw_connection()) as pooled:
        assert Raw(pooled).names() == set()


def check_setting_is_gone(engine: Engine) -> None:
    """Look at the setting after a transaction of A's, outside of any other."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert connection.scalar(text(SETTING)) == str(A)
        raw = Raw(connection.connection)
        connection.commit()
        if not raw.is_asyncpg:
            raw.adapted.set_autocommit(True)
        assert raw.column(SETTING) == [""]
        if not raw.is_asyncpg:
            raw.adapted.set_autocommit(False)


def test_setting_is_gone_with_its_transaction(engine: Engine) -> None:
    """The server itself forgets the tenant: nothing is sent for it when a transaction is over."""
    check_setting_is_gone(engine)


def test_error_in_the_first_statement_changes_nothing(engine: Engine) -> None:
    """A first statement that fails, at being read or run, is followed by the same tenant's rows."""
    for letter, tenant in (("a", A), ("b", B)):
        for wrong in ("selec", "select 1 / 0", "select nothing from test_sets"):
            with bound(engine, tenant) as session:
                with pytest.raises(DBAPIError):
                    session.execute(text(wrong))
                with pytest.raises(DBAPIError):
                    session.execute(text("select 1"))
                session.rollback()
                assert seen(session) == names_of(letter)


def test_statement_timeout_changes_nothing(engine: Engine) -> None:
    """A statement that takes too long ends its transaction; the next one is as bound."""
    for letter, tenant in (("a", A), ("b", B)):
        with bound(engine, tenant) as session:
            session.execute(text("set local statement_timeout = 10"))
            with pytest.raises(DBAPIError, match="statement timeout"):
                session.execute(text("select pg_sleep(5)"))
            session.rollback()
            assert seen(session) == names_of(letter)


def test_prepared_statements_are_each_tenants_own(engine: Engine) -> None:
    """What the driver prepared for A returns B's rows for B, on the same connection."""
    statement = select(TestSet.name).where(TestSet.name != "nothing")
    prepared = "select count(*) from pg_prepared_statements where not from_sql and statement like "
    for _ in range(2):
        for letter, tenant in (("a", A), ("b", B)):
            with bound(engine, tenant) as session:
                for _ in range(8):
                    assert set(session.scalars(statement)) == names_of(letter)
                    session.commit()
                like = "'SELECT test_sets.name%'"
                assert session.scalar(text(f"{prepared}{like}"))
        with engine.connect() as connection:
            for _ in range(8):
                assert connection.scalars(statement).all() == []


def test_transactions_of_another_kind_are_the_tenants(engine: Engine) -> None:
    """Isolation level, read only and deferrable are a part of BEGIN, and the context stays."""
    options = {
        "isolation_level": "SERIALIZABLE",
        "postgresql_readonly": True,
        "postgresql_deferrable": True,
    }
    with engine.connect().execution_options(**options) as connection:
        set_tenant(connection, A)
        assert seen(connection) == names_of("a")
        assert connection.scalar(text("show transaction_isolation")) == "serializable"
        assert connection.scalar(text("show transaction_read_only")) == "on"
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")
        assert session.scalar(text("show transaction_read_only")) == "off"

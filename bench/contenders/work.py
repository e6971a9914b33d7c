"""The table that all contenders have, and the work that all of them do on it."""

import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import URL, ColumnElement, Engine, Text, create_engine, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column
from sqlalchemy.pool import NullPool

# Digits follow, so that pgbench, which can count but not write a uuid, can name rows too.
TENANTS: Final = "00000000-0000-4000-8000-"
ITEMS: Final = "00000000-0000-4000-9000-"
FIRST: Final = 100_000_000_000
ROWS: Final = 1000
EPOCH: Final = datetime(2000, 1, 1)  # noqa: DTZ001 - the column has no time zone


@dataclass(frozen=True, slots=True)
class Places:
    """The URLs of one database: of its owner, of the application, and of the superuser."""

    owner: URL
    app: URL
    superuser: URL


@dataclass(frozen=True, slots=True)
class Size:
    """How many tenants there are, and how many rows each has; below a thousand."""

    tenants: int
    rows: int


@dataclass(frozen=True, slots=True)
class Row:
    """One row, by the numbers of its tenant and of itself, both from 1."""

    tenant: int
    number: int

    @property
    def owner(self) -> uuid.UUID:
        """Return the tenant's id."""
        return uuid.UUID(f"{TENANTS}{FIRST + self.tenant}")

    @property
    def id(self) -> uuid.UUID:
        """Return the row's id."""
        return uuid.UUID(f"{ITEMS}{FIRST + ROWS * self.tenant + self.number}")


class ItemColumns:
    """The columns that an item has wherever it is kept, besides its keys."""

    name: Mapped[str] = mapped_column(Text)
    amount: Mapped[int]
    created_at: Mapped[datetime]


def _everything(tenant: uuid.UUID) -> tuple[ColumnElement[bool], ...]:
    return ()


@dataclass(frozen=True, slots=True)
class Contender:
    """One way of keeping tenants apart, ready to work.

    Attributes:
        engine: of which everything below is made.
        item: the mapped class.
        session: opens a Session for a tenant.
        mine: the filter that the program has to write itself, where it has to.
        tenant_column: the attribute to which a new item's tenant is written, if there is one.
        refusals: what is raised instead of touching the last tenant's rows.
    """

    engine: Engine
    item: Any
    session: Callable[[uuid.UUID], AbstractContextManager[Session]]
    mine: Callable[[uuid.UUID], tuple[ColumnElement[bool], ...]] = _everything
    tenant_column: str | None = "organization_id"
    refusals: tuple[type[Exception], ...] = (SQLAlchemyError,)

    def look_up(self, row: Row) -> None:
        """Read one item by its key, and commit."""
        with self.session(row.owner) as session:
            session.scalars(self._by_key(row)).one()
            session.commit()

    def mix(self, row: Row) -> None:
        """Read the newest fifty items and one by its key, change that one, and commit."""
        newest = select(self.item).where(*self.mine(row.owner))
        newest = newest.order_by(self.item.created_at.desc()).limit(50)
        with self.session(row.owner) as session:
            session.scalars(newest).all()
            session.scalars(self._by_key(row)).one().amount += 1
            session.commit()

    def backend(self) -> int:
        """Return the process that serves the pool's connection."""
        with closing(self.engine.raw_connection()) as connection:
            driver: Any = connection.driver_connection
            pid: int = driver.get_backend_pid()
            return pid

    def answers(self, size: Size) -> dict[str, str]:
        """Return what can be seen where nothing of another tenant should be."""
        one, other = Row(1, 1), Row(2, 1)

        def pooled() -> str:
            self.look_up(one)
            with self.engine.connect() as connection:
                whose = self._whose(connection.execute(self._seen()).one(), size)
                return "the last tenant's" if whose == "own" else whose

        def inherited() -> str:
            self.look_up(other)
            with self.session(one.owner) as session:
                return self._whose(session.connection().execute(self._seen()).one(), size)

        def again() -> str:
            with self.session(one.owner) as session:
                session.scalars(self._by_key(one)).one()
                session.commit()
                with self.engine.connect():
                    mine = self.mine(one.owner)
                    return self._whose(session.execute(self._seen().where(*mine)).one(), size)

        def forgotten() -> str:
            with self.session(one.owner) as session:
                return self._whose(session.execute(self._seen()).one(), size)

        def foreign() -> str:
            if self.tenant_column is None:
                return "no such column"
            item = self.item(id=uuid.uuid4(), name="", amount=0, created_at=EPOCH)
            setattr(item, self.tenant_column, other.owner)
            with self.session(one.owner) as session:
                session.add(item)
                session.flush()
                session.rollback()
            return "accepted"

        asked = (pooled, inherited, again, forgotten, foreign)
        return {question.__name__: self._answer(question) for question in asked}

    def _answer(self, question: Callable[[], str]) -> str:
        try:
            return question()
        except self.refusals:
            return "refused"
        finally:
            # The next question begins with a new connection.
            self.engine.dispose()

    def _by_key(self, row: Row) -> Any:
        return select(self.item).where(*self.mine(row.owner), self.item.id == row.id)

    def _seen(self) -> Any:
        ids = self.item.id.cast(Text)
        return select(func.min(ids), func.max(ids), func.count()).select_from(self.item)

    def _whose(self, seen: Any, size: Size) -> str:
        first, last, count = seen
        for tenant, whose in ((1, "own"), (2, "the last tenant's")):
            ends = (str(Row(tenant, 1).id), str(Row(tenant, size.rows).id))
            if (first, last, count) == (*ends, size.rows):
                return whose
        if count == 0:
            return "none"
        return "everybody's" if count == size.tenants * size.rows else f"{count} rows"


def fill(places: Places, size: Size, tenant_column: str) -> None:
    """Write all tenants' items into one table, past whatever keeps them apart."""
    with opened(places.superuser) as connection:
        connection.exec_driver_sql(
            f"""
            insert into items ({tenant_column}, id, name, amount, created_at)
            select ('{TENANTS}' || {FIRST} + t)::uuid,
                ('{ITEMS}' || {FIRST} + {ROWS} * t + n)::uuid, 'item ' || n, 0,
                timestamp '2025-01-01' + n * interval '1 minute'
            from generate_series(1, {size.tenants}) as t, generate_series(1, {size.rows}) as n
            """
        )
        connection.exec_driver_sql("vacuum analyze items")


def opened(url: URL) -> Any:
    """Return a connection, in autocommit, to be used as a context."""
    return create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect()


def admit(places: Places) -> None:
    """Let the application read and write the table, as its owner says."""
    with opened(places.owner) as connection:
        quoted = connection.dialect.identifier_preparer.quote(places.app.username)
        connection.execute(text(f"grant usage on schema public to {quoted}"))
        connection.execute(text(f"grant select, insert, update, delete on items to {quoted}"))

"""The four ways an application reaches its database, each as a hand that attacks can use."""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from psycopg2 import sql
from sqlalchemy import (
    Connection,
    CursorResult,
    Engine,
    Table,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from tenantry.config import TenancyConfig
from tenantry.context import TenantId
from tenantry.database import TENANCY_OPTION, ConnectionState
from tenantry.rls import qualified_name
from tenantry.testing.attacks_relations import Relation, attribute, written
from tenantry.testing.attacks_rows import Row, Target

Surface = Literal["orm", "core", "text", "psycopg2"]
Bind = Callable[[Session | Connection, TenantId], object]

_SETTLE: Final = "set constraints all immediate"
# Not every driver tells the number of rows once its cursor is closed.
_COUNTED: Final = {"preserve_rowcount": True}
_PLACEHOLDER: Final = re.compile(r"%%|%\((\w+)\)s|:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the attacker was told.

    Attributes:
        count: rows read or written.
        owners: the tenant of each row read.
        value: the single value of a query for one.
        sqlstate, constraint: of the server's error.
        refusal: type of the library's own error.
        message: first line of either error.
    """

    count: int = 0
    owners: tuple[str, ...] = ()
    value: str | None = None
    sqlstate: str | None = None
    constraint: str | None = None
    refusal: str | None = None
    message: str = ""

    @property
    def observable(self) -> tuple[object, ...]:
        """Return what of it could tell one value from another; messages repeat the value."""
        return (self.count, self.value, self.sqlstate, self.constraint, self.refusal)

    @property
    def failed(self) -> bool:
        """Tell whether it is an error."""
        return self.sqlstate is not None or self.refusal is not None


class Hand(ABC):
    """One open way to the database, positioned by the arena; used for one attack and closed."""

    def __init__(self, relations: Mapping[str, Relation]) -> None:
        self._relations = relations

    def relation(self, target: Target) -> Relation:
        """Return the target as this surface names it."""
        return self._relations[target.table.fullname]

    @abstractmethod
    def bind(self, tenant: TenantId) -> None:
        """Name the tenant, in the way of this surface."""

    @abstractmethod
    def begin(self) -> None:
        """Begin a transaction, if none is open."""

    @abstractmethod
    def commit(self) -> None:
        """Commit."""

    @abstractmethod
    def rollback(self) -> None:
        """Roll back."""

    @abstractmethod
    def close(self) -> None:
        """Give the connection back to its pool."""

    @abstractmethod
    def settle(self) -> None:
        """Check the constraints that would wait for the end of the transaction."""

    @abstractmethod
    def execute(self, statement: Any) -> Answer:
        """Execute a statement made of this surface's relations."""

    def find(self, target: Target, row: Row) -> Answer:
        """Read one row by its key."""
        relation = self.relation(target)
        return self.execute(relation.owners().where(relation.is_row(row)))

    def insert(self, target: Target, row: Row) -> Answer:
        """Insert the row."""
        relation = self.relation(target)
        values = relation.assigned(row, target.writable)
        return self.execute(insert(relation.entity).values(values))

    def alter(self, target: Target, row: Row, changed: Row, keys: tuple[str, ...]) -> Answer:
        """Update some columns of one row to the values that they have in another."""
        relation = self.relation(target)
        return self.execute(
            update(relation.entity)
            .where(relation.is_row(row))
            .values(relation.assigned(changed, keys))
        )

    def remove(self, target: Target, row: Row) -> Answer:
        """Delete all rows of the row's tenant."""
        relation = self.relation(target)
        return self.execute(delete(relation.entity).where(relation.is_owned_like(row)))


class SessionHand(Hand):
    """The ORM: statements on classes, and the unit of work where it has a way of its own."""

    def __init__(self, engine: Engine, relations: Mapping[str, Relation], bind: Bind) -> None:
        super().__init__(relations)
        self._session = Session(engine)
        self._bind = bind

    def bind(self, tenant: TenantId) -> None:
        """Name the Session's tenant."""
        self._bind(self._session, tenant)

    def begin(self) -> None:
        """Begin the Session's transaction, with its connection."""
        self._session.connection()

    def commit(self) -> None:
        """Commit."""
        self._session.commit()

    def rollback(self) -> None:
        """Roll back."""
        self._session.rollback()

    def close(self) -> None:
        """Close the Session."""
        self._session.close()

    def settle(self) -> None:
        """Check deferred constraints."""
        self._session.execute(text(_SETTLE))

    def execute(self, statement: Any) -> Answer:
        """Execute an ORM statement."""
        result: Any = self._session.execute(
            statement, execution_options=_COUNTED | {"synchronize_session": False}
        )
        return _answer(result, _owner_of)

    def find(self, target: Target, row: Row) -> Answer:
        """Get the object by its primary key."""
        mapped = self.relation(target).entity
        keys = target.table.primary_key.columns or target.table.columns
        found = self._session.get(mapped, tuple(row.values[c.key] for c in keys))
        if found is None:
            return Answer()
        return Answer(count=1, owners=(str(getattr(found, attribute(target.tenant))),))

    def insert(self, target: Target, row: Row) -> Answer:
        """Add an object and flush it."""
        added = self.relation(target).entity()
        for key in target.writable:
            setattr(added, attribute(key), row.values[key])
        self._session.add(added)
        self._session.flush()
        return Answer(count=1)

    def alter(self, target: Target, row: Row, changed: Row, keys: tuple[str, ...]) -> Answer:
        """Load the object, change it and flush it."""
        mapped = self.relation(target).entity
        columns = target.table.primary_key.columns or target.table.columns
        loaded = self._session.get(mapped, tuple(row.values[c.key] for c in columns))
        if loaded is None:
            return Answer()
        for key in keys:
            setattr(loaded, attribute(key), changed.values[key])
        self._session.flush()
        return Answer(count=1)


def _owner_of(row: Any) -> str:
    first = row[0]
    mapper = getattr(type(first), "__mapper__", None)
    if mapper is None:
        return str(first)
    return str(getattr(first, attribute(type(first).tenant_key)))


class ConnectionHand(Hand):
    """Core: a Connection and statements on tables."""

    def __init__(self, engine: Engine, relations: Mapping[str, Relation], bind: Bind) -> None:
        super().__init__(relations)
        self._connection = engine.connect()
        self._bind = bind

    def bind(self, tenant: TenantId) -> None:
        """Name the Connection's tenant."""
        self._bind(self._connection, tenant)

    def begin(self) -> None:
        """Begin a transaction."""
        if not self._connection.in_transaction():
            self._connection.begin()

    def commit(self) -> None:
        """Commit."""
        self._connection.commit()

    def rollback(self) -> None:
        """Roll back."""
        self._connection.rollback()

    def close(self) -> None:
        """Close the Connection."""
        self._connection.close()

    def settle(self) -> None:
        """Check deferred constraints."""
        self._connection.execute(text(_SETTLE))

    def execute(self, statement: Any) -> Answer:
        """Execute a Core statement."""
        result = self._connection.execute(statement, execution_options=_COUNTED)
        return _answer(result, lambda row: str(row[0]))


class TextHand(ConnectionHand):
    """`text()`: a Connection and written SQL with bound parameters."""

    def execute(self, statement: Any) -> Answer:
        """Execute the statement as text."""
        string, parameters = written(statement)
        result = self._connection.execute(
            text(_PLACEHOLDER.sub(_as_text, string)), parameters, execution_options=_COUNTED
        )
        return _answer(result, lambda row: str(row[0]))

    def truncate(self, target: Target) -> Answer:
        """TRUNCATE the table."""
        name = qualified_name(target.table.name, target.table.schema)
        self._connection.execute(text(f"truncate table {name}".replace(":", "\\:")))
        return Answer(count=1)


def _as_text(match: re.Match[str]) -> str:
    if match.group(0) == ":":
        return "\\:"
    return f":{match.group(1)}" if match.group(1) else "%"


class DriverHand(Hand):
    """psycopg2: the driver's own connection, on which the tenant is a hand-written SET."""

    def __init__(
        self, engine: Engine, relations: Mapping[str, Relation], config: TenancyConfig
    ) -> None:
        super().__init__(relations)
        self._pooled = engine.raw_connection()
        self._setting = config.organization_setting

    @property
    def _driver(self) -> Any:
        return self._pooled.driver_connection

    def bind(self, tenant: TenantId) -> None:
        """Set the tenant for the rest of the session, or of the transaction where that is meant."""
        state: ConnectionState | None = self._pooled.info.get(TENANCY_OPTION)
        local = state is not None and state.local
        with self._driver.cursor() as cursor:
            cursor.execute(
                "select pg_catalog.set_config(%s, %s, %s)", (self._setting, str(tenant), local)
            )

    def begin(self) -> None:
        """Leave it to the first statement, with which psycopg2 begins."""

    def commit(self) -> None:
        """Commit."""
        self._driver.commit()

    def rollback(self) -> None:
        """Roll back."""
        self._driver.rollback()

    def close(self) -> None:
        """Give the connection back to the pool."""
        self._pooled.close()

    def settle(self) -> None:
        """Check deferred constraints."""
        with self._driver.cursor() as cursor:
            cursor.execute(_SETTLE)

    def execute(self, statement: Any) -> Answer:
        """Execute the statement as a string."""
        string, parameters = written(statement)
        with self._driver.cursor() as cursor:
            cursor.execute(string, parameters)
            if cursor.description is None:
                return Answer(count=max(cursor.rowcount, 0))
            owners = tuple(str(row[0]) for row in cursor.fetchall())
            return Answer(count=len(owners), owners=owners)

    def truncate(self, target: Target) -> Answer:
        """TRUNCATE the table."""
        with self._driver.cursor() as cursor:
            cursor.execute(sql.SQL("truncate table {}").format(_identifier(target.table)))
        return Answer(count=1)

    def copy_out(self, target: Target) -> Answer:
        """COPY the tenant of each row out."""
        copied = io.StringIO()
        command = sql.SQL("copy {} ({}) to stdout").format(
            _identifier(target.table), sql.Identifier(target.table.c[target.tenant].name)
        )
        with self._driver.cursor() as cursor:
            cursor.copy_expert(command, copied)
        owners = tuple(copied.getvalue().splitlines())
        return Answer(count=len(owners), owners=owners)

    def copy_in(self, target: Target, row: Row) -> Answer:
        """COPY the row in."""
        names = [target.table.c[key].name for key in target.writable]
        fields = (row.texts[key] for key in target.writable)
        line = ",".join(
            "" if field is None else '"{}"'.format(field.replace('"', '""')) for field in fields
        )
        command = sql.SQL("copy {} ({}) from stdin with (format csv)").format(
            _identifier(target.table), sql.SQL(", ").join(map(sql.Identifier, names))
        )
        with self._driver.cursor() as cursor:
            cursor.copy_expert(command, io.StringIO(f"{line}\n"))
            return Answer(count=max(cursor.rowcount, 0))


def _identifier(mapped_table: Table) -> sql.Identifier:
    if mapped_table.schema is None:
        return sql.Identifier(mapped_table.name)
    return sql.Identifier(mapped_table.schema, mapped_table.name)


def bind_plainly(config: TenancyConfig) -> Bind:
    """Return what binds a tenant with SET alone, as code without Tenantry does.

    For engines that are not protected: to see whether the database alone keeps tenants apart, and
    what a pooled connection does without the layer.
    """

    def bind(target: Session | Connection, tenant: TenantId) -> None:
        target.execute(
            select(func.pg_catalog.set_config(config.organization_setting, str(tenant), False))
        )

    return bind


def _answer(result: Any, owner_of: Callable[[Any], str]) -> Answer:
    if isinstance(result, CursorResult) and not result.returns_rows:
        return Answer(count=max(result.rowcount, 0))
    owners = tuple(owner_of(row) for row in result.all())
    return Answer(count=len(owners), owners=owners)

"""Where SQLAlchemy tells the layer of a transaction: methods of its dialect, and of a statement's.

Listeners to an engine's `begin`, `commit` and the like would see the same. But one such listener
has SQLAlchemy dispatch some ten events in each transaction, most of them to nobody, which is a
tenth of what a short unit of work costs the client. The methods are called anyway, and before any
listener of the application's, which could execute a statement in the dialect's place.

Source: SQLAlchemy, `sqlalchemy.engine.interfaces`, `Dialect` and `ExecutionContext.pre_exec`;
`Engine._has_events`.
"""

import functools
from typing import Any, Protocol, cast

from sqlalchemy import Connection, Engine
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.engine.interfaces import Dialect

from tenantry.filters import statement_tenant


class Listener(Protocol):
    """What the layer wants to be told; a proxied connection is the pool's."""

    def on_begin(self, proxied_connection: Any) -> None:
        """A transaction begins."""

    def on_begin_twophase(self, connection: Connection) -> None:
        """A transaction is about to begin that is to be prepared."""

    def on_rollback_to_savepoint(self, connection: Connection) -> None:
        """A transaction is about to go back to a savepoint."""

    def on_statement(self, context: Any, statement: str) -> None:
        """A statement is about to be executed, of which nobody else was told."""

    def on_execute(self, cursor: Any, statement: str, context: Any) -> None:
        """A statement is executed now."""

    def statement_tenant(self, connection: Connection) -> Any:
        """Return whose statement is asked for on a Connection."""

    def on_end(self, dbapi_connection: Any) -> None:
        """A transaction is about to end."""


class TenantDialect(Dialect):
    """Tells the layer what a transaction is about to do; mixed into an engine's dialect."""

    tenancy: Listener

    def do_begin(self, dbapi_connection: Any) -> None:
        """Begin a transaction, and announce its tenant, or its absence."""
        super().do_begin(dbapi_connection)
        self.tenancy.on_begin(dbapi_connection)

    def do_begin_twophase(self, connection: Connection, xid: Any) -> None:
        """Announce the tenant, and begin a transaction that is to be prepared."""
        self.tenancy.on_begin_twophase(connection)
        super().do_begin_twophase(connection, xid)

    def do_execute(self, cursor: Any, statement: str, parameters: Any, context: Any = None) -> None:
        """Execute, for whom the statement was passed: other listeners may have executed some."""
        self.tenancy.on_execute(cursor, statement, context)
        super().do_execute(cursor, statement, parameters, context)

    def do_executemany(
        self, cursor: Any, statement: str, parameters: Any, context: Any = None
    ) -> None:
        """Execute, for whom the statement was passed."""
        self.tenancy.on_execute(cursor, statement, context)
        super().do_executemany(cursor, statement, parameters, context)

    def do_execute_no_params(self, cursor: Any, statement: str, context: Any = None) -> None:
        """Execute, for whom the statement was passed."""
        self.tenancy.on_execute(cursor, statement, context)
        super().do_execute_no_params(cursor, statement, context)

    def do_rollback_to_savepoint(self, connection: Connection, name: str) -> None:
        """Roll back to a savepoint, which takes back what the server was told since."""
        self.tenancy.on_rollback_to_savepoint(connection)
        super().do_rollback_to_savepoint(connection, name)


class TenantContext(DefaultExecutionContext):
    """Tells the layer of a statement before any listener of an application's could execute it.

    Attributes:
        passed: the layer lets it be executed.
        guarded: it is executed on a cursor that refuses what was not checked.
        tenant: whose it was when it was passed.
        state: of the physical connection that it was passed for; None where there is no layer.
        turn: which of that connection's statements it is.
    """

    passed = False
    guarded = False
    tenant: Any = None
    state: Any = None
    turn = 0

    def pre_exec(self) -> None:
        """Have the layer pass or refuse the statement."""
        try:
            cast("TenantDialect", self.dialect).tenancy.on_statement(self, self.statement)
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # As SQLAlchemy does with what happens from here on: an interruption in the midst of a
            # message costs the connection.
            self.root_connection._handle_dbapi_exception(
                error, self.statement, self.parameters, self.cursor, self
            )
        self.passed = True
        cast("Any", super()).pre_exec()


class FilteringContext(TenantContext):
    """Has the explicit filters name whose statement it is, while its parameters are collected."""

    @classmethod
    def _init_compiled(cls, dialect: Any, connection: Connection, *args: Any, **kwargs: Any) -> Any:
        outer = statement_tenant.get()
        statement_tenant.set(dialect.tenancy.statement_tenant(connection))
        try:
            return super()._init_compiled(dialect, connection, *args, **kwargs)
        finally:
            statement_tenant.set(outer)


class EndingDialect(TenantDialect):
    """For drivers whose connections do not tell the layer themselves that a transaction ends."""

    def do_commit(self, dbapi_connection: Any) -> None:
        """Commit."""
        self.tenancy.on_end(dbapi_connection.dbapi_connection)
        super().do_commit(dbapi_connection)

    def do_rollback(self, dbapi_connection: Any) -> None:
        """Roll back."""
        self.tenancy.on_end(dbapi_connection.dbapi_connection)
        super().do_rollback(dbapi_connection)

    def do_commit_twophase(self, connection: Connection, *args: Any, **kwargs: Any) -> None:
        """Commit what was prepared."""
        self.tenancy.on_end(connection.connection.dbapi_connection)
        super().do_commit_twophase(connection, *args, **kwargs)

    def do_rollback_twophase(self, connection: Connection, *args: Any, **kwargs: Any) -> None:
        """Roll back what was prepared, or was to be."""
        self.tenancy.on_end(connection.connection.dbapi_connection)
        super().do_rollback_twophase(connection, *args, **kwargs)


@functools.cache
def _within(layer: Any, own: Any) -> type:
    # SQLAlchemy wants each class to say for itself that its statements may be cached: they are what
    # they were.
    caches = {"supports_statement_cache": own.supports_statement_cache}
    return type(f"Tenant{own.__name__}", (layer, own), caches)


@functools.cache
def _told(own: Any, context: type) -> type:
    return type(f"Tenant{own.__name__}", (context, own), {})


def extend_dialect(engine: Engine, tenancy: Listener, *, ends: bool) -> None:
    """Have the engine's dialect, which is its alone, tell the layer.

    Args:
        engine: whose dialect it is.
        tenancy: its layer.
        ends: tell it of the ends of transactions too.
    """
    dialect: Any = engine.dialect
    layer = EndingDialect if ends else TenantDialect
    dialect.__class__ = _within(layer, dialect.__class__)
    dialect.execution_ctx_cls = _told(dialect.execution_ctx_cls, TenantContext)
    dialect.tenancy = tenancy


def filter_statements(engine: Engine) -> None:
    """Have the parameters of the explicit filters be those of each statement's own tenant."""
    dialect: Any = engine.dialect
    dialect.execution_ctx_cls = _told(dialect.execution_ctx_cls, FilteringContext)

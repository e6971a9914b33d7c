"""Engines that write the tenant at the start of every transaction and clear it afterwards."""

import functools
import logging
import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, get_args

import psycopg2
import psycopg2.extensions
from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.pool import (
    ConnectionPoolEntry,
    PoolResetState,
    SingletonThreadPool,
    StaticPool,
)
from sqlalchemy.pool.base import ResetStyle
from sqlalchemy.sql.expression import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)

from tenantry.binding import Binding, agreed_tenant
from tenantry.config import DEFAULT_CONFIG, Mode, Scope, TenancyConfig, parse_url
from tenantry.context import ContextWriter, Tenant, command_writer, function_writer
from tenantry.diagnosis import diagnose
from tenantry.exceptions import (
    ConfigurationError,
    IsolationNotEnforcedError,
    MissingMigrationsError,
)
from tenantry.filters import Filtering, FilteringCompiler, statement_tenant
from tenantry.gate import GuardableConnection, check_seen, check_statement
from tenantry.probe import Isolation, probe

logger = logging.getLogger("tenantry")

TENANCY_OPTION: Final = "tenantry"
TENANT_OPTION: Final = "tenantry_tenant"
SESSION_OPTION: Final = "tenantry_session"

# What one tenant could leave behind on a pooled connection for the next one: open cursors,
# prepared statements, temporary tables, subscriptions, advisory locks. Not DISCARD ALL, which would
# undo what the application sets when it connects.
_DISCARD: Final = (
    "close all; deallocate all; discard temp; unlisten *; "
    "select pg_catalog.pg_advisory_unlock_all()"
)


# They carry no tenant, and the second is all that a failed transaction accepts.
_SAVEPOINT_CLAUSES: Final = (SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause)

_protected: weakref.WeakSet[Engine] = weakref.WeakSet()


class _Unwritten:
    """Stands for 'the server was not told yet' where a tenant or None would be."""


_UNWRITTEN: Final = _Unwritten()


@dataclass(slots=True)
class ConnectionState:
    """What the layer knows of one physical connection; lives in `Connection.info`.

    Attributes:
        isolation: what the probe found.
        write: tells the server who the tenant is.
        local: the setting ends with the transaction.
        guarded: explicit filters are the only wall.
        written: what the server was told last, and still holds.
        written_at_begin: what it goes back to with ROLLBACK TO a savepoint.
        users: the Sessions that have used the connection.
        outer_tenant: that of the statement in whose midst this one is executed.
    """

    isolation: Isolation
    write: ContextWriter
    local: bool
    guarded: bool
    written: Tenant | _Unwritten | None = _UNWRITTEN
    written_at_begin: Tenant | _Unwritten | None = _UNWRITTEN
    users: weakref.WeakSet[Binding] = field(default_factory=weakref.WeakSet)
    outer_tenant: Tenant | None = None


class Tenancy:
    """The tenant layer of one engine: its configuration and its event handlers."""

    def __init__(
        self,
        config: TenancyConfig,
        *,
        mode: Mode,
        scope: Scope,
        metadata: MetaData | None,
    ) -> None:
        """Keep the configuration; `protect_engine` connects the handlers.

        Raises:
            ConfigurationError: there is no such mode or scope.
        """
        for name, value, choices in (("mode", mode, Mode), ("scope", scope, Scope)):
            if value not in get_args(choices):
                raise ConfigurationError(
                    f"{name} {value!r} is unknown: use one of {', '.join(get_args(choices))}"
                )
        self.config = config
        self.mode = mode
        self.scope = scope
        self.metadata = metadata
        self.filtering = Filtering(config, active=mode in {"filters", "both"})
        self.warned = False

    # Connections

    def on_do_connect(self, _dialect: object, _record: object, _args: Any, options: Any) -> None:
        """Have the driver make connections whose cursors can be guarded."""
        options.setdefault("connection_factory", GuardableConnection)

    def on_connect(self, dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        """Probe a new physical connection, decide how its tenants are kept apart, say so once."""
        try:
            record.info[TENANCY_OPTION] = self._examine(dbapi_connection)
        except BaseException:
            dbapi_connection.close()
            raise

    def _examine(self, dbapi_connection: Any) -> ConnectionState:
        isolation = probe(dbapi_connection, self.config, self.metadata)
        where = f"database {isolation.database!r} as role {isolation.role!r}"
        if self.mode != "filters" and not isolation.tenant_tables:
            raise MissingMigrationsError(
                f"{where}: no table has the column {self.config.tenant_column!r}; run "
                "`alembic upgrade head` with MIGRATION_DATABASE_URL set to the owner's URL"
            )
        if isolation.missing_tables:
            raise MissingMigrationsError(
                f"{where}: the models describe {', '.join(isolation.missing_tables)}, which the "
                "database does not have; run `alembic upgrade head`"
            )
        if self.mode != "filters" and not isolation.enforced:
            reasons = _summary(isolation.reasons)
            if self.mode == "database":
                raise IsolationNotEnforcedError(
                    f"{where} does not keep tenants apart: {reasons}. `tenantry status` shows the "
                    "whole state; connect as a login that is a member of "
                    f"{self.config.app_role!r} alone, after `alembic upgrade head`"
                )
            if not self.warned:
                self.warned = True
                logger.warning(
                    "ROW-LEVEL SECURITY DOES NOT KEEP TENANTS APART in %s: %s. Explicit filters "
                    "stand in for it, and statements that cannot be filtered are refused.",
                    where,
                    reasons,
                )
            self.filtering.active = True
        self.filtering.learn(isolation.tenant_tables, isolation.shared_tables)
        if isolation.stored_default:
            logger.warning(
                "%s starts with a tenant set by a stored default; the layer overwrites it, other "
                "clients do not: `alter role … reset %s`",
                where,
                self.config.organization_setting,
            )
        return self._prepare(dbapi_connection, isolation)

    def _prepare(self, dbapi_connection: Any, isolation: Isolation) -> ConnectionState:
        shared_backend = isolation.pooled or isolation.citus
        if self.scope == "session" and shared_backend:
            raise ConfigurationError(
                "scope 'session' was asked for, and a pooler (or Citus) stands in between, where a "
                "session's setting is read by other clients: use scope 'auto' or 'transaction'"
            )
        local = self.scope == "transaction" or shared_backend
        guarded = self.mode == "filters" or not isolation.enforced
        state = ConnectionState(
            isolation=isolation,
            write=(
                command_writer(self.config)
                if isolation.citus
                else function_writer(self.config, local=local)
            ),
            local=local,
            guarded=guarded,
        )
        if not local:
            _outside_transaction(dbapi_connection, lambda cursor: state.write(cursor, None))
        if guarded:
            if not isinstance(dbapi_connection, GuardableConnection):
                raise ConfigurationError(
                    "explicit filters are the only wall here, and the engine's connections are of "
                    "a class of its own, whose raw cursors would go round them: leave "
                    "connection_factory out of connect_args"
                )
            dbapi_connection.guarded = True
        return state

    def on_reset(
        self, dbapi_connection: Any, record: ConnectionPoolEntry | None, reset_state: PoolResetState
    ) -> None:
        """Clear a direct connection on its way back to the pool: no tenant, nothing left behind.

        An error here makes the pool discard the connection.
        """
        if record is None or reset_state.terminate_only:
            return
        state: ConnectionState | None = record.info.get(TENANCY_OPTION)
        if state is None:
            return
        state.written = state.written_at_begin = _UNWRITTEN
        # The driver keeps what the server told the last user.
        del dbapi_connection.notices[:], dbapi_connection.notifies[:]
        if state.isolation.pooled:
            return

        def clear(cursor: Any) -> None:
            cursor.execute(f"{_DISCARD}; {self._clear_statement}")

        status = dbapi_connection.info.transaction_status
        if status != psycopg2.extensions.TRANSACTION_STATUS_IDLE:
            dbapi_connection.rollback()
        _outside_transaction(dbapi_connection, clear)

    @functools.cached_property
    def _clear_statement(self) -> str:
        return (
            f"select pg_catalog.set_config('{self.config.organization_setting}', '', false), "
            f"pg_catalog.set_config('{self.config.user_setting}', '', false)"
        )

    # Transactions

    def on_begin(self, connection: Connection) -> None:
        """Write the tenant, or its absence, as the first thing in every transaction."""
        state = connection_state(connection)
        state.written = state.written_at_begin = _UNWRITTEN
        self.write(connection, bound_tenant(connection))
        state.written_at_begin = state.written

    def on_begin_twophase(self, connection: Connection, _xid: object) -> None:
        """Leave the writing to the first statement: nothing may precede a two-phase begin."""
        state = connection_state(connection)
        state.written = state.written_at_begin = _UNWRITTEN

    def on_rollback_savepoint(self, connection: Connection, *_: object) -> None:
        """Forget what was written since the transaction began: the server forgets it too."""
        if connection.invalidated:
            return
        state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        if state is not None and state.written != state.written_at_begin:
            state.written = _UNWRITTEN

    def write(self, connection: Connection, tenant: Tenant | None) -> None:
        """Tell the server of this connection who the tenant is; None clears it.

        Raises:
            ConfigurationError: the setting would end before the next statement.
            sqlalchemy.exc.DBAPIError: the server did not take it; the connection is replaced if it
                was lost.
        """
        state = connection_state(connection)
        driver_connection: Any = connection.connection.dbapi_connection
        if state.local and driver_connection.autocommit:
            raise ConfigurationError(
                "AUTOCOMMIT cannot carry a tenant here: the setting ends with its transaction "
                "(scope 'transaction'), so each statement would run without one"
            )
        state.written = _UNWRITTEN
        try:
            cursor = psycopg2.extensions.cursor(driver_connection)
            state.write(cursor, tenant)
            cursor.close()
        except psycopg2.Error as error:
            # SQLAlchemy's own way: it recognises a lost connection, and raises.
            connection._handle_dbapi_exception(error, "set the tenant", None, None, None)
        state.written = tenant

    def write_between_transactions(self, connection: Connection, tenant: Tenant | None) -> None:
        """Replace a tenant that an idle connection still holds; a raw cursor would see it."""
        state = connection_state(connection)
        if not state.local and state.written not in (_UNWRITTEN, tenant):
            state.written = _UNWRITTEN
            _outside_transaction(
                connection.connection.dbapi_connection, lambda cursor: state.write(cursor, tenant)
            )

    # Statements

    def on_before_execute(self, connection: Connection, *_: Any) -> None:
        """Let the compiler's filter know whose statement this is."""
        state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        if self.filtering.active and state is not None:
            state.outer_tenant = statement_tenant.get()
            statement_tenant.set(bound_tenant(connection))

    def on_before_cursor_execute(
        self,
        connection: Connection,
        cursor: Any,
        _statement: str,
        _parameters: Any,
        context: ExecutionContext | None,
        _executemany: bool,
    ) -> None:
        """See that the server knows the tenant; refuse what filters alone cannot confine.

        The tenant is compared at each statement, not trusted from the transaction's begin: what
        interrupts a begin (a signal, a cancelled query) must not leave the last tenant in place.
        """
        state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        compiled = getattr(context, "compiled", None)
        if state is None or isinstance(getattr(compiled, "statement", None), _SAVEPOINT_CLAUSES):
            if state is not None and state.guarded:
                cursor.checked = True
            return
        tenant = bound_tenant(connection)
        if state.written != tenant or not connection.in_transaction():
            self.write(connection, tenant)
        if self.filtering.active:
            statement_tenant.set(state.outer_tenant)
        if state.guarded:
            check_statement(compiled, getattr(context, "compiled_parameters", None), tenant)
            cursor.checked = True
        elif isinstance(compiled, FilteringCompiler) and compiled.tenant_unseen:
            check_seen(compiled)

    def on_after_cursor_execute(self, connection: Connection, cursor: Any, *_: Any) -> None:
        """Let nothing else be executed on a cursor that was checked for one statement."""
        state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        if state is not None and state.guarded:
            cursor.checked = False

    # Errors

    def on_error(self, context: ExceptionContext) -> BaseException | None:
        """Return the error of the library's own that says what to do, to be raised instead."""
        return diagnose(context, self.metadata, self.config)


def create_tenant_engine(
    url: str | URL,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    mode: Mode = "auto",
    scope: Scope = "auto",
    metadata: MetaData | None = None,
    **engine_options: Any,
) -> Engine:
    """Create an engine on which no transaction ever runs with a tenant that was not bound to it.

    Args:
        url: the application role's URL; psycopg2 is the driver.
        config: what the database calls its tenants.
        mode: `auto` (row-level security, or explicit filters with one warning where it is
            missing), `database` (refuse to connect where it is missing), `filters`, `both`.
        scope: `session` (a setting of the session, cleared on return to the pool), `transaction`
            (a setting that ends with its transaction), `auto` (session, except behind a
            transaction pooler and on Citus).
        metadata: of the models; lets errors about missing tables and organizations name the cause.
        engine_options: for `sqlalchemy.create_engine`.

    Raises:
        ConfigurationError: the URL cannot be used.

    On connecting, the engine raises DatabaseUnreachableError, MissingMigrationsError,
    IsolationNotEnforcedError (mode `database`) or ConfigurationError (scope `session` behind a
    pooler).
    """
    parsed = parse_url(url.render_as_string(hide_password=False) if isinstance(url, URL) else url)
    return protect_engine(
        create_engine(parsed, **engine_options),
        config=config,
        mode=mode,
        scope=scope,
        metadata=metadata,
    )


def protect_engine(
    engine: Engine,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    mode: Mode = "auto",
    scope: Scope = "auto",
    metadata: MetaData | None = None,
) -> Engine:
    """Give an existing engine the guarantee of `create_tenant_engine`, and return it.

    For applications whose engine is made elsewhere; call it before the engine's first connection.

    Raises:
        ConfigurationError: the engine is not PostgreSQL by psycopg2, is already protected, or has
            connections from before.
    """
    if engine.dialect.name != "postgresql" or engine.dialect.driver != "psycopg2":
        raise ConfigurationError(
            f"engine {engine.url.drivername!r} cannot be protected: use postgresql+psycopg2"
        )
    if TENANCY_OPTION in engine.get_execution_options():
        raise ConfigurationError("this engine is already protected: create one engine a database")
    checked_in = getattr(engine.pool, "checkedin", None)
    if checked_in is not None and checked_in():
        raise ConfigurationError(
            "this engine has pooled connections that were opened unprotected: call "
            "protect_engine() right after create_engine()"
        )
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):
        raise ConfigurationError(
            f"{type(engine.pool).__name__} hands one connection to several users at once, who may "
            "be of different tenants: use QueuePool or NullPool"
        )
    if engine.pool._reset_on_return is ResetStyle.reset_commit:
        raise ConfigurationError(
            "pool_reset_on_return='commit' would commit what was left unfinished for a tenant: "
            "leave it at 'rollback'"
        )
    tenancy = Tenancy(config, mode=mode, scope=scope, metadata=metadata)
    engine.update_execution_options(**{TENANCY_OPTION: tenancy})
    engine.dialect.statement_compiler = type(
        "TenantCompiler",
        (FilteringCompiler, engine.dialect.statement_compiler),
        {"filtering": tenancy.filtering},
    )
    event.listen(engine, "do_connect", tenancy.on_do_connect)
    event.listen(engine, "connect", tenancy.on_connect)
    event.listen(engine, "reset", tenancy.on_reset)
    event.listen(engine, "begin", tenancy.on_begin)
    event.listen(engine, "begin_twophase", tenancy.on_begin_twophase)
    event.listen(engine, "rollback_savepoint", tenancy.on_rollback_savepoint)
    event.listen(engine, "before_execute", tenancy.on_before_execute)
    event.listen(engine, "before_cursor_execute", tenancy.on_before_cursor_execute)
    event.listen(engine, "after_cursor_execute", tenancy.on_after_cursor_execute)
    event.listen(engine, "handle_error", tenancy.on_error)
    _protected.add(engine)
    return engine


def _forget_connections() -> None:
    """In a forked child: leave the parent's connections to the parent."""
    for engine in _protected:
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)


def connection_state(connection: Connection) -> ConnectionState:
    """Return what the layer knows of the physical connection behind this one.

    Raises:
        ConfigurationError: the connection is not of a protected engine.
    """
    state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
    if state is None:
        raise ConfigurationError(
            "this connection was not opened by a protected engine, so a tenant would not stay "
            "bound to it: use create_tenant_engine() or protect_engine()"
        )
    return state


def bound_tenant(connection: Connection) -> Tenant | None:
    """Return the tenant that this connection's next statement is to run for.

    The one bound to the Connection itself, or that of the Sessions that are using it.

    Raises:
        TenantSwitchError: they are of different tenants.
    """
    options = connection.get_execution_options()
    users = {user for user in connection_state(connection).users if user.uses(connection)}
    # A Session that is just beginning here has not registered yet; its transaction is the first.
    beginning: Binding | None = options.get(SESSION_OPTION)
    if not connection.in_transaction() and beginning is not None and beginning.active:
        users.add(beginning)
    return agreed_tenant(options.get(TENANT_OPTION), users)


def _outside_transaction(dbapi_connection: Any, act: Callable[[Any], None]) -> None:
    """Run commands on an idle psycopg2 connection, each message its own transaction."""
    autocommit = dbapi_connection.autocommit
    dbapi_connection.autocommit = True
    try:
        with psycopg2.extensions.cursor(dbapi_connection) as cursor:
            act(cursor)
    finally:
        if not dbapi_connection.closed:
            dbapi_connection.autocommit = autocommit


def _summary(reasons: tuple[str, ...], shown: int = 3) -> str:
    more = f"; and {len(reasons) - shown} more" if len(reasons) > shown else ""
    return "; ".join(reasons[:shown]) + more

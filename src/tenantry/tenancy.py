"""What the layer does when an engine connects, begins, executes and gives a connection back."""

import re
import weakref
from typing import Any, Final

from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolResetState
from sqlalchemy.sql.expression import (
    ReleaseSavepointClause,
    RollbackToSavepointClause,
    SavepointClause,
)

from tenantry.admission import Admission
from tenantry.binding import Binding, agreed_tenant, users_on
from tenantry.context import Tenant
from tenantry.diagnosis import diagnose
from tenantry.dialects import TenantContext, extend_dialect, filter_statements
from tenantry.exceptions import ConfigurationError, TenantSwitchError
from tenantry.filters import Filtering, FilteringCompiler
from tenantry.gate import check_seen, check_statement, check_tenant_given
from tenantry.states import UNKNOWN, ConnectionState
from tenantry.ways import replace_session_tenant

TENANCY_OPTION: Final = "tenantry"
TENANT_OPTION: Final = "tenantry_tenant"
SESSION_OPTION: Final = "tenantry_session"

# They carry no tenant, and the second is all that a failed transaction accepts.
_SAVEPOINT_CLAUSES: Final = (SavepointClause, RollbackToSavepointClause, ReleaseSavepointClause)
_ROLLS_BACK: Final = re.compile(r"\b(?:rollback|abort)\b", re.IGNORECASE)
_ROLLBACK: Final = re.compile(r"\s*(?:rollback|abort)\b[^;]*;?\s*", re.IGNORECASE)
_GOES_ON: Final = re.compile(r"(?:^|;)\s*(?:rollback|abort)\b[^;]*;\s*\S", re.IGNORECASE)


class Tenancy:
    """The tenant layer of one engine: its configuration and its event handlers."""

    def __init__(self, admission: Admission) -> None:
        """Take what admits connections; `protect_engine` connects the handlers."""
        self.admission = admission
        self.config = admission.config
        self.driver = admission.driver
        self.filtering = Filtering(admission.config)
        self._engine: weakref.ref[Engine] | None = None

    def protect(self, engine: Engine) -> None:
        """Have the engine call the handlers."""
        self._engine = weakref.ref(engine)
        self.driver.install(engine)
        event.listen(engine, "connect", self.on_connect)
        event.listen(engine, "reset", self.on_reset)
        event.listen(engine, "checkout", self.on_checkout)
        # An event of the dialect, which costs what its own listeners do; see there for the others.
        event.listen(engine, "handle_error", self.on_error)
        extend_dialect(engine, self, ends=self.driver.always_local)
        if self.admission.context == "separate":
            self._announce_at_once()
        if self.admission.mode in {"filters", "both"}:
            self._filter()

    def _filter(self) -> None:
        """Filter what is compiled from now on; a handler that is not needed is not paid for."""
        engine = self._engine() if self._engine else None
        if engine is not None:
            filter_statements(engine)
            event.listen(engine, "after_cursor_execute", self.on_after_cursor_execute)
            # A listener of the application's may execute in the dialect's place.
            event.listen(engine, "do_execute", self.on_do_execute)
            event.listen(engine, "do_executemany", self.on_do_execute)
            event.listen(engine, "do_execute_no_params", self.on_do_execute_no_params)
        self.filtering.active = True

    def _announce_at_once(self) -> None:
        """Tell of each begin as it is the Connection's: a Session's announcement would be two."""
        engine = self._engine() if self._engine else None
        if engine is not None and not event.contains(engine, "begin", self.on_begin_at_once):
            event.listen(engine, "begin", self.on_begin_at_once)

    # Connections

    def on_connect(self, dbapi_connection: Any, record: ConnectionPoolEntry) -> None:
        """Probe a new physical connection, decide how its tenants are kept apart, say so once."""
        try:
            state = self.admission.admit(dbapi_connection)
        except BaseException:
            dbapi_connection.close()
            raise
        if state.guarded and not self.filtering.active:
            self._filter()
        if not state.way.waits:
            self._announce_at_once()
        isolation = state.isolation
        self.filtering.learn(isolation.tenant_tables, isolation.shared_tables, isolation.own_code)
        record.info[TENANCY_OPTION] = state

    def on_checkout(
        self, dbapi_connection: Any, record: ConnectionPoolEntry, _proxy: object
    ) -> None:
        """Remember what the connection is like before its next user has it.

        Raises:
            sqlalchemy.exc.DisconnectionError: for the pool, which replaces the connection: its last
                user changed the driver's autocommit past SQLAlchemy, and left it so.
        """
        state: ConnectionState | None = record.info.get(TENANCY_OPTION)
        if state is not None:
            autocommit = bool(dbapi_connection.autocommit)
            if state.autocommit is None:
                state.autocommit = autocommit
            elif state.autocommit != autocommit:
                raise DisconnectionError("autocommit is not as the pool has it")
        self.driver.lend(dbapi_connection)

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
        state.own = None
        state.end_transaction()
        self.driver.end(dbapi_connection)
        if not state.isolation.pooled and (state.traces or state.holds is not None):
            message = state.clear
            if state.traces:
                message = f"{self.driver.discard}; {message}"
            self.driver.send(dbapi_connection, message)
            state.holds = None
            state.traces = self.driver.overlooks(dbapi_connection)
        self.driver.forget(dbapi_connection)

    # Transactions

    def on_begin(self, proxied_connection: Any) -> None:
        """Announce the tenant of a Connection, or nobody, before anything else in a transaction.

        A Session announces its own, in place of nobody, before it executes anything.
        """
        state: ConnectionState | None = proxied_connection.info.get(TENANCY_OPTION)
        if state is not None and state.way.waits:
            state.end_transaction()
            nobody = state.own is None and state.holds is None and not state.local
            if nobody and proxied_connection.dbapi_connection.autocommit:
                # Each announcement is a message, and the first statement's may be another's.
                state.written_at_begin = UNKNOWN
                return
            self._announce(proxied_connection.dbapi_connection, state, state.own)
            state.written_at_begin = state.written

    def on_begin_at_once(self, connection: Connection) -> None:
        """Announce the tenant, or its absence, where each announcement is a message."""
        state = connection_state(connection)
        if not state.way.waits:
            state.end_transaction()
            self._announce_on(connection, state, bound_tenant(connection))
            state.written_at_begin = state.written

    def on_begin_twophase(self, connection: Connection) -> None:
        """Leave it to the first statement: nothing may be sent ahead of a two-phase begin."""
        state = connection_state(connection)
        tenant = bound_tenant(connection)
        if state.way.waits:
            state.end_transaction()
            self._announce_on(connection, state, tenant)
            state.written_at_begin = state.written
        else:
            self.write_between_transactions(connection, tenant)
            state.written_at_begin = UNKNOWN

    def on_end(self, dbapi_connection: Any) -> None:
        """Forget the transaction, so that what the driver begins by itself is nobody's."""
        state = None if dbapi_connection is None else self.driver.state(dbapi_connection)
        if state is not None:
            state.end_transaction()

    def on_rollback_to_savepoint(self, connection: Connection) -> None:
        """Forget what the server was told, unless it was the same all through the transaction."""
        state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        if state is not None and (
            state.written_at_begin is UNKNOWN or state.written != state.written_at_begin
        ):
            state.written = UNKNOWN

    def write(self, connection: Connection, tenant: Tenant | None) -> None:
        """Tell the server of this connection who the tenant is, before whatever is sent next.

        Raises:
            ConfigurationError: the setting would end before the next statement.
            sqlalchemy.exc.DBAPIError: the server did not take it; the connection is replaced if it
                was lost.
        """
        self._announce_on(connection, connection_state(connection), tenant)

    def update(self, connection: Connection, state: ConnectionState) -> None:
        """Tell the server who the tenant is, unless it knows."""
        self._update(connection, state, bound_tenant(connection))

    def _update(
        self, connection: Connection, state: ConnectionState, tenant: Tenant | None
    ) -> None:
        written = state.written
        if (written is not tenant and written != tenant) or not connection.in_transaction():
            self._announce_on(connection, state, tenant)
        elif state.written_at_begin is UNKNOWN:
            # What goes round SQLAlchemy may have gone back to a savepoint, and so to another one.
            try:
                state.way.repeat(connection.connection.dbapi_connection, state, tenant)
            except connection.dialect.loaded_dbapi.Error as error:
                _raise_as_sqlalchemy(connection, error)

    def _announce_on(
        self, connection: Connection, state: ConnectionState, tenant: Tenant | None
    ) -> None:
        try:
            self._announce(connection.connection.dbapi_connection, state, tenant)
        except connection.dialect.loaded_dbapi.Error as error:
            _raise_as_sqlalchemy(connection, error)

    def _announce(
        self, dbapi_connection: Any, state: ConnectionState, tenant: Tenant | None
    ) -> None:
        if state.local and dbapi_connection.autocommit:
            raise ConfigurationError(
                "AUTOCOMMIT cannot carry a tenant here: the setting ends with its transaction "
                "(scope 'transaction'), so each statement would run without one"
            )
        state.written = UNKNOWN
        if state.way.announce(dbapi_connection, state, tenant):
            state.written_at_begin = tenant
        elif state.written_at_begin != tenant:
            # A savepoint may be set, and gone back to, while this one is in place.
            state.written_at_begin = UNKNOWN
        state.written = state.told = tenant

    def write_between_transactions(self, connection: Connection, tenant: Tenant | None) -> None:
        """Replace a tenant that an idle connection still holds; a raw cursor would see it."""
        state = connection_state(connection)
        state.end_transaction()
        if not state.local and state.holds is not None and state.holds != tenant:
            replace_session_tenant(connection.connection.dbapi_connection, state, tenant)

    # Statements

    def statement_tenant(self, connection: Connection) -> Tenant | None:
        """Return whose statement is asked for, so that the compiler's filters can name them."""
        return bound_tenant(connection)

    def on_do_execute(self, cursor: Any, statement: str, _parameters: Any, context: Any) -> None:
        """Pass what is executed before its statement is, such as a column's default."""
        self.on_execute(cursor, statement, context)

    def on_do_execute_no_params(self, cursor: Any, statement: str, context: Any) -> None:
        """Do as for a statement with parameters."""
        self.on_execute(cursor, statement, context)

    def on_execute(self, cursor: Any, statement: str, context: Any) -> None:
        """Pass what is executed before its statement is, such as a column's default."""
        if context is None:
            return
        state = context.state
        if not context.passed:
            self.on_statement(context, statement)
        elif state is not None and (
            state.turn != context.turn
            or (state.written is not context.tenant and state.written != context.tenant)
        ):
            self._pass_again(context, state)
        if context.guarded:
            # Each batch of rows is executed on a cursor that was checked for it.
            cursor.checked = True

    def _pass_again(self, context: TenantContext, state: ConnectionState) -> None:
        """Tell the server again whose statement it is, after a listener executed another one.

        Raises:
            TenantSwitchError: the Connection has become another tenant's in the meantime.
        """
        connection = context.root_connection
        if bound_tenant(connection) != context.tenant:
            raise TenantSwitchError(
                "a listener has made the Connection another tenant's in the midst of a statement "
                f"of {context.tenant or 'nobody'}: give it a Connection of its own"
            )
        self._update(connection, state, context.tenant)

    def on_statement(self, context: TenantContext, statement: str) -> None:
        """See that the server knows the tenant; refuse what filters alone cannot confine.

        The tenant is compared at each statement, not trusted from the transaction's begin: what
        interrupts a begin (a signal, a cancelled query) must not leave the last tenant in place.
        """
        connection = context.root_connection
        try:
            state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        except NotImplementedError:
            # SQLAlchemy's own, for the dialect to learn about the server.
            return
        if state is None:
            return
        context.guarded = state.guarded
        compiled = context.compiled
        if isinstance(getattr(compiled, "statement", None), _SAVEPOINT_CLAUSES):
            return
        # A connection that was made in place of another knows nothing yet.
        state.own = connection.get_execution_options().get(TENANT_OPTION)
        tenant = bound_tenant(connection)
        if tenant is None and compiled is not None and users_on(connection):
            check_tenant_given(context.invoked_statement, self.config)
        own_text = compiled is None or context.is_text or context.isddl
        if own_text and _ROLLS_BACK.search(statement):
            self._pass_rollback(connection, state, tenant, statement)
        else:
            self._update(connection, state, tenant)
            context.state, context.tenant, context.turn = state, tenant, state.turn + 1
        state.turn += 1
        if state.guarded:
            check_statement(compiled, getattr(context, "compiled_parameters", None), tenant)
        elif isinstance(compiled, FilteringCompiler) and compiled.tenant_unseen:
            check_seen(compiled)

    def _pass_rollback(
        self, connection: Connection, state: ConnectionState, tenant: Tenant | None, text: str
    ) -> None:
        """Pass a text that may go back to a savepoint, or to before a BEGIN in text.

        Raises:
            TenantSwitchError: more follows in the same message, which another tenant's turn in this
                transaction could be had for.
        """
        if _ROLLBACK.fullmatch(text) is None:
            if state.written_at_begin is UNKNOWN and _GOES_ON.search(text):
                raise TenantSwitchError(
                    "a text rolls back and goes on, in a transaction that more than one tenant "
                    "had a turn in: execute ROLLBACK as a statement of its own"
                )
            self._update(connection, state, tenant)
        state.written = UNKNOWN

    def on_after_cursor_execute(self, connection: Connection, cursor: Any, *_: Any) -> None:
        """Let nothing else be executed on a cursor that was checked for one statement."""
        state: ConnectionState | None = connection.info.get(TENANCY_OPTION)
        if state is not None and state.guarded:
            cursor.checked = False

    # Errors

    def on_error(self, context: ExceptionContext) -> BaseException | None:
        """Return the error of the library's own that says what to do, to be raised instead."""
        return diagnose(context, self.admission.metadata, self.config)


def _raise_as_sqlalchemy(connection: Connection, error: BaseException) -> None:
    """Raise a driver's error as SQLAlchemy does, which recognises a lost connection."""
    connection._handle_dbapi_exception(error, "set the tenant", None, None, None)


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
    own: Tenant | None = options.get(TENANT_OPTION)
    users = users_on(connection)
    beginning: Binding | None = options.get(SESSION_OPTION)
    if beginning is not None and beginning.begins and beginning not in users:
        users.append(beginning)
    if own is None and len(users) == 1:
        return users[0].tenant
    return agreed_tenant(own, users)

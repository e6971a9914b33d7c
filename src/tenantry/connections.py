"""Connections and cursors of psycopg2 that let no message go ahead of its transaction's context."""

import functools
import re
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from psycopg2 import Error, ProgrammingError, extensions
from psycopg2.sql import Composable

from tenantry.binding import Binding
from tenantry.context import ContextWriter, Tenant
from tenantry.exceptions import ConfigurationError, UnfilterableStatementError
from tenantry.gate import CursorGuard
from tenantry.probe import Isolation
from tenantry.traces import leaves_traces

_IDLE: Final = extensions.TRANSACTION_STATUS_IDLE
_driver_autocommit: Final[Any] = vars(extensions.connection)["autocommit"]
_driver_status: Final[Any] = vars(extensions.connection)["status"]
_driver_query: Final[Any] = vars(extensions.cursor)["query"]

# What begins with one of these is the only command of which a prefix is certain to change nothing:
# not its result, since it is no empty query, nor whether it may run, since it needs no
# transaction of its own. A comment that could hold another one is not looked through.
_QUERY: Final = r"(?:[\s(]|/\*[^*/]*\*/)*(?:select|insert|update|delete|with|values|savepoint)\b"
_ENDING: Final = r"\s*(?:commit|rollback|abort|end|release)\b"
_query: Final = re.compile(_QUERY, re.IGNORECASE)
_query_bytes: Final = re.compile(_QUERY.encode(), re.IGNORECASE)
_ending: Final = re.compile(_ENDING, re.IGNORECASE)


class Unknown:
    """Stands, where a tenant or None would be, for one that is not known."""


UNKNOWN: Final = Unknown()


class Way(Protocol):
    """How a transaction's context reaches the server.

    Attributes:
        waits: a context may wait for the first message of its transaction.
    """

    waits: bool

    def announce(self, connection: Any, state: "ConnectionState", tenant: Tenant | None) -> None:
        """See to it that no later message of this transaction finds another tenant in place."""

    def carry(self, connection: "TenantConnection", send: Callable[[str], None]) -> None:
        """Have the first message sent, given what this way puts in front of the context."""


@dataclass(slots=True)
class ConnectionState:
    """What the layer knows of one physical connection; lives in `Connection.info`.

    Attributes:
        isolation: what the probe found.
        write: tells the server who the tenant is, in a message of its own.
        way: how a transaction's context reaches the server.
        local: the setting ends with the transaction.
        guarded: explicit filters are the only wall.
        written: what the server was told last, or will be by its next message, and still holds.
        written_at_begin: what it goes back to with ROLLBACK TO a savepoint.
        pending: the query that tells it, to go in front of the next message.
        holds: the tenant that the session may have, whatever is committed or rolled back.
        traces: something may be left in the session for its next user.
        users: the Sessions that have used the connection.
        outer_tenant: that of the statement in whose midst this one is executed.
    """

    isolation: Isolation
    write: ContextWriter
    way: Way
    local: bool
    guarded: bool
    written: Tenant | Unknown | None = UNKNOWN
    written_at_begin: Tenant | Unknown | None = UNKNOWN
    pending: str | None = None
    holds: Tenant | Unknown | None = None
    traces: bool = True
    users: weakref.WeakSet[Binding] = field(default_factory=weakref.WeakSet)
    outer_tenant: Tenant | None = None

    def end_transaction(self) -> None:
        """Forget what the transaction was told; the next one is told anew."""
        self.written, self.pending = UNKNOWN, None
        if self.local:
            self.holds = None


class ContextCursor(extensions.cursor):
    """A cursor that has the context in place before anything of the transaction is executed.

    A query takes it along; whatever else comes first is preceded by it. Stands next to the driver's
    own class, below any other, so that it sees what is really sent.
    """

    _lead = b""

    @property
    def query(self) -> bytes | None:
        """What was sent last, without the context in front of it."""
        query: bytes | None = _driver_query.__get__(self)
        return query[len(self._lead) :] if query and query.startswith(self._lead) else query

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        """Execute a command, in front of which the context goes if it is the first."""
        connection: Any = self.connection
        state = _state_of(connection)
        if state is None:
            super().execute(query, vars)
            return
        if not state.traces and leaves_traces(query, vars):
            state.traces = True
        self._lead = b""
        if self.name is not None:
            # It becomes a part of DECLARE.
            connection.send_context()
            with connection.unfolded():
                super().execute(query, vars)
        elif state.pending is None:
            super().execute(query, vars)
        else:
            self._execute_first(connection, state, query, vars)

    def _execute_first(
        self, connection: Any, state: ConnectionState, query: Any, vars_: Any
    ) -> None:
        if isinstance(query, Composable):
            query = query.as_string(self)
        if not _is_query(query) or connection.autocommit:
            if not (isinstance(query, str) and _ending.match(query)):
                connection.send_context()
            super().execute(query, vars_)
            return
        context = state.pending

        def send(opening: str) -> None:
            lead = f"{opening}{context};\n"
            self._lead = lead.encode()
            message = lead + query if isinstance(query, str) else self._lead + query
            super(ContextCursor, self).execute(message, vars_)

        state.way.carry(connection, send)
        # What fails has told the server nothing: the next message takes it along again.
        if state.pending is context:
            state.pending = None

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Execute a command for several rows, each a message, which the context precedes."""
        self._prepare()
        super().executemany(query, vars_list)

    def callproc(self, *args: Any) -> Any:
        """Call a function, which the context precedes."""
        self._prepare()
        return super().callproc(*args)

    def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
        """Copy rows, which the context precedes."""
        self._prepare()
        return super().copy_expert(*args, **kwargs)

    def copy_from(self, *args: Any, **kwargs: Any) -> Any:
        """Copy rows from a file, which the context precedes."""
        self._prepare()
        return super().copy_from(*args, **kwargs)

    def copy_to(self, *args: Any, **kwargs: Any) -> Any:
        """Copy rows to a file, which the context precedes."""
        self._prepare()
        return super().copy_to(*args, **kwargs)

    def _prepare(self) -> None:
        state = _state_of(self.connection)
        if state is not None:
            state.traces = True
            self.connection.send_context()  # type: ignore[attr-defined]


class VerifiedCursor:
    """Notices a cursor class of the application's that goes round the context; mixed into it."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        """Execute a command, and see that the context went with it."""
        state = _state_of(self.connection)  # type: ignore[attr-defined]
        context = state.pending if state else None
        super().execute(query, vars)  # type: ignore[misc]
        if state and context and state.pending is context and not _ending.match(str(query)):
            raise ConfigurationError(
                f"{type(self).__name__}.execute() calls the driver's cursor by its name, and so "
                "went round the tenant, without which it sees no rows: have it call "
                "super().execute()"
            )


def _settable_outside(name: str) -> Any:
    driver: Any = vars(extensions.connection)[name]

    def put(self: "TenantConnection", value: object) -> None:
        self._refuse_inside(name)
        driver.__set__(self, value)

    return property(driver.__get__, put, doc="As the driver has it.")


class TenantConnection(extensions.connection):
    """A psycopg2 connection on which every cursor, of whatever class, carries the context.

    Where its transactions are folded, the driver believes itself in autocommit, while BEGIN went
    with the context and COMMIT is sent from here; seen from outside nothing is different.
    """

    state: ConnectionState | None = None
    guarded = False
    _asked_autocommit = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect as the driver does."""
        super().__init__(*args, **kwargs)
        self._folding = threading.RLock()

    def cursor(
        self,
        name: Any = None,
        cursor_factory: Any = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> Any:
        """Open a cursor that carries the context; a guarded one where filters are the only wall."""
        factory = _carrying(cursor_factory or self.cursor_factory, self.guarded)
        return super().cursor(name, factory, withhold, scrollable)

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        """Open a large object; refused where filters are the only wall."""
        if self.guarded:
            raise UnfilterableStatementError("large objects belong to no tenant: use a table")
        self.send_context()
        with self.unfolded():
            return super().lobject(*args, **kwargs)

    def send_context(self) -> None:
        """Send the context in a message of its own, if it has not been sent.

        Raises:
            ConfigurationError: it would end with that message.
        """
        state = self.state
        if state is None or state.pending is None:
            return
        if state.local and self.autocommit:
            raise ConfigurationError(
                "AUTOCOMMIT cannot carry a tenant here: the setting ends with its transaction "
                "(scope 'transaction'), so each statement would run without one"
            )
        extensions.cursor(self).execute(state.pending)
        state.pending = None

    # Ends of transactions

    def commit(self) -> None:
        """Commit."""
        if self.state is not None:
            self.state.end_transaction()
        if self.folded:
            self._end("commit")
        else:
            super().commit()

    def rollback(self) -> None:
        """Roll back."""
        if self.state is not None:
            self.state.end_transaction()
        if self.folded:
            self._end("rollback")
        else:
            super().rollback()

    def reset(self) -> None:
        """Roll back, and set the session's settings back."""
        self.rollback()
        super().reset()
        self._asked_autocommit = _driver_autocommit.__get__(self)

    # Folded transactions

    @property
    def folded(self) -> bool:
        """Whether the driver was put into autocommit from here, for one transaction."""
        return not self._asked_autocommit and bool(_driver_autocommit.__get__(self))

    @property
    def foldable(self) -> bool:
        """Whether a transaction can begin here with a plain BEGIN."""
        return (
            self.status == extensions.STATUS_READY
            and not self._asked_autocommit
            and self.isolation_level is None
            and self.readonly is None
            and self.deferrable is None
        )

    def fold(self, send: Callable[[str], None]) -> None:
        """Have a message sent that begins the transaction itself."""
        with self._folding:
            if not self.foldable:
                send("")
                return
            try:
                _driver_autocommit.__set__(self, True)
                send("begin;")
            except Error as error:
                if error.pgcode is not None and self.get_transaction_status() == _IDLE:
                    self._abort()
                raise
            finally:
                self._unfold_if_idle()

    def _abort(self) -> None:
        """Have the transaction begun and failed, as if the message that was not read had been."""
        cursor = extensions.cursor(self)
        cursor.execute("begin")
        with suppress(Error):
            cursor.execute('rollback to savepoint "the statement before this one was not read"')

    def _end(self, command: str) -> None:
        try:
            if self.get_transaction_status() != _IDLE:
                extensions.cursor(self).execute(command)
        finally:
            self._unfold_if_idle()

    def _unfold_if_idle(self) -> None:
        if not self.closed and self.get_transaction_status() == _IDLE:
            _driver_autocommit.__set__(self, False)

    @contextmanager
    def unfolded(self) -> Iterator[None]:
        """Let the driver take a folded transaction over, as named cursors and large objects need.

        It says BEGIN, which changes nothing and which the server warns about.
        """
        if not self.folded or self.get_transaction_status() == _IDLE:
            yield
            return
        told = len(self.notices)
        _driver_autocommit.__set__(self, False)
        yield
        del self.notices[told : told + 1]

    # What the driver tells of its transaction, and refuses inside of one

    @property
    def status(self) -> int:
        """As the driver has it."""
        status: int = _driver_status.__get__(self)
        if (
            status == extensions.STATUS_READY
            and self.folded
            and self.get_transaction_status() != _IDLE
        ):
            return extensions.STATUS_BEGIN
        return status

    @property
    def autocommit(self) -> bool:
        """As the driver has it."""
        return self._asked_autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._refuse_inside("autocommit")
        _driver_autocommit.__set__(self, value)
        self._asked_autocommit = _driver_autocommit.__get__(self)

    isolation_level = _settable_outside("isolation_level")
    readonly = _settable_outside("readonly")
    deferrable = _settable_outside("deferrable")

    def set_session(self, *args: Any, **kwargs: Any) -> None:
        """Set what later transactions are like."""
        self._refuse_inside("set_session")
        super().set_session(*args, **kwargs)
        self._asked_autocommit = _driver_autocommit.__get__(self)

    def set_isolation_level(self, level: int | None) -> None:
        """Roll back, and set the isolation level of later transactions."""
        if self.folded:
            self.rollback()
        super().set_isolation_level(level)
        self._asked_autocommit = _driver_autocommit.__get__(self)

    def set_client_encoding(self, encoding: str) -> None:
        """Roll back, and set the encoding."""
        if self.folded:
            self.rollback()
        super().set_client_encoding(encoding)

    def tpc_begin(self, xid: Any) -> None:
        """Begin a two-phase transaction."""
        self._refuse_inside("tpc_begin")
        super().tpc_begin(xid)

    def _refuse_inside(self, what: str) -> None:
        if self.folded and self.status == extensions.STATUS_BEGIN:
            raise ProgrammingError(f"{what} cannot be used inside a transaction")


def _state_of(connection: object) -> ConnectionState | None:
    state: ConnectionState | None = getattr(connection, "state", None)
    return state


def _is_query(query: object) -> bool:
    if isinstance(query, str):
        return _query.match(query) is not None
    return isinstance(query, bytes) and _query_bytes.match(query) is not None


@functools.lru_cache(maxsize=256)
def _carrying(factory: Any, guarded: bool) -> type:
    """Return the cursor class that was asked for, with what carries the context in it."""
    asked = ContextCursor if factory in {None, extensions.cursor} else factory
    if not isinstance(asked, type) or not issubclass(asked, extensions.cursor):
        raise ConfigurationError(
            f"cursor_factory {asked!r} is no subclass of psycopg2.extensions.cursor, so the tenant "
            "cannot be made a part of its cursors: use a class"
        )
    bases: list[type] = [asked]
    if not issubclass(asked, ContextCursor):
        bases.append(ContextCursor)
        if asked.execute is not extensions.cursor.execute:
            bases.insert(0, VerifiedCursor)
    if guarded:
        bases.insert(0, CursorGuard)
    return type(f"Tenant{asked.__name__}", tuple(bases), {}) if len(bases) > 1 else asked

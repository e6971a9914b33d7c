"""psycopg 3: its connections, synchronous or not, send the context together with BEGIN."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection, BaseConnection, Connection, pq
from psycopg.abc import PQGen
from psycopg.generators import execute
from psycopg.pq.abc import PGresult
from sqlalchemy import Engine, MetaData, event

from tenantry.config import TenancyConfig
from tenantry.drivers.begun import BegunDriver, Probed, WithBegin
from tenantry.exceptions import ConfigurationError
from tenantry.probe import Isolation, probe
from tenantry.states import ConnectionState
from tenantry.traces import leaves_traces

_CURSORS: Final = (psycopg.Cursor, psycopg.AsyncCursor)
_FINE: Final = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK}
_IDLE: Final = pq.TransactionStatus.IDLE


class _Beginning(bytes):
    """The command that begins a transaction, told from every other by its type."""


class _Watched:
    """Tells its connection what it is about to execute; mixed into each class of cursors."""

    _conn: Any
    _declared: Any = None

    def _make_declare_statement(self, query: Any) -> Any:
        # A cursor WITH HOLD keeps its rows for whoever knows its name.
        self._declared = None if self._withhold else query  # type: ignore[attr-defined]
        return super()._make_declare_statement(query)  # type: ignore[misc]

    def _start_query(self, query: Any = None) -> PQGen[None]:
        self._conn.watch(query if self._declared is None else self._declared)
        yield from super()._start_query(query)  # type: ignore[misc]


@lru_cache(maxsize=64)
def _watched(factory: Any) -> type:
    """Return the class of cursors that was asked for, watched."""
    if not isinstance(factory, type) or not issubclass(factory, _CURSORS):
        raise ConfigurationError(
            f"cursor_factory {factory!r} is no class of psycopg's cursors, so what is executed on "
            "them cannot be seen: use a subclass of psycopg.Cursor or psycopg.AsyncCursor"
        )
    if issubclass(factory, _Watched):
        return factory
    return type(f"Tenant{factory.__name__}", (_Watched, factory), {})


class _Carrying(BaseConnection[Any]):
    """Sends the context with whatever BEGIN the driver sends; mixed into both its connections."""

    state: ConnectionState | None = None
    _seen = False
    _handlers: tuple[list[Any], list[Any]] | None = None

    def _get_tx_start_command(self) -> bytes:
        return _Beginning(super()._get_tx_start_command())

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> PQGen[PGresult | None]:
        state = self.state
        if state is None or not isinstance(command, _Beginning):
            return (yield from super()._exec_command(command, *args, **kwargs))
        way: WithBegin = state.way  # type: ignore[assignment]
        context = way.opening(state).encode()
        if self._pipeline is None:
            return (yield from self.send_gen(b"%s; %s" % (command, context)))
        # In a pipeline each command is a message of its own, and they travel together.
        yield from super()._exec_command(bytes(command), *args, **kwargs)
        return (yield from super()._exec_command(context, *args, **kwargs))

    def send_gen(self, message: bytes) -> PQGen[PGresult]:
        """Send commands in one message of the simple protocol."""
        self._check_connection_ok()
        self.pgconn.send_query(message)
        results: list[PGresult] = yield from execute(self.pgconn)
        for result in results:
            if result.status not in _FINE:
                raise psycopg.errors.error_from_result(result, encoding=self.info.encoding)
        return results[0]

    # What is executed, and what it could leave behind

    @property
    def cursor_factory(self) -> type:
        """The class of cursors, watched."""
        return self._cursor_factory

    @cursor_factory.setter
    def cursor_factory(self, factory: type) -> None:
        self._cursor_factory = _watched(factory)

    @property
    def server_cursor_factory(self) -> type:
        """The class of server-side cursors, watched."""
        return self._server_cursor_factory

    @server_cursor_factory.setter
    def server_cursor_factory(self, factory: type) -> None:
        self._server_cursor_factory = _watched(factory)

    def watch(self, query: object) -> None:
        """Take note of what a cursor is about to execute."""
        self._seen = True
        state = self.state
        if state is not None and not state.traces:
            state.traces = leaves_traces(query, None, state.isolation.steady_functions)

    def _start_query(self) -> PQGen[None]:
        # By a cursor that this connection has not made.
        if not self._seen and self.state is not None:
            self.state.traces = True
        self._seen = False
        yield from super()._start_query()

    def lend(self) -> None:
        """Remember whom the application as such wants to be told of messages."""
        if self._handlers is None:
            self._handlers = list(self._notice_handlers), list(self._notify_handlers)

    def forget(self) -> None:
        """Tell later users' messages to nobody else, and keep none for them."""
        if self._handlers is not None:
            self._notice_handlers[:], self._notify_handlers[:] = self._handlers
        # The driver keeps none before 3.2.4.
        backlog = getattr(self, "_notifies_backlog", None)
        if backlog:
            backlog.clear()


class TenantConnection(_Carrying, Connection[Any]):
    """A connection of psycopg on which every transaction begins with its context."""


class AsyncTenantConnection(_Carrying, AsyncConnection[Any]):
    """An asynchronous connection of psycopg on which every transaction begins with its context."""


class Psycopg(BegunDriver):
    """psycopg 3, synchronous: SQLAlchemy's connection is the driver's own."""

    def __init__(self, own: type = TenantConnection) -> None:
        """Name the class of connections."""
        super().__init__("postgresql+psycopg", own)

    def install(self, engine: Engine) -> None:
        """Have the engine connect with this class, after what listens to `do_connect`."""
        engine.dialect.connect = TenantConnection.connect  # type: ignore[method-assign, assignment]

    def driver_connection(self, connection: Any) -> Any:
        """Return the connection."""
        return connection

    def examine(
        self, connection: Any, config: TenancyConfig, metadata: MetaData | None
    ) -> Isolation:
        """Probe the connection."""
        info = self.owned(connection).info
        probed = Probed(
            connection,
            pid=info.backend_pid,
            user=info.user,
            set_autocommit=connection.set_autocommit,
        )
        return probe(probed, config, metadata, execute=_one_by_one)

    def in_transaction(self, connection: Any) -> bool:
        """Tell whether the server has been told to begin."""
        status = self.driver_connection(connection).pgconn.transaction_status
        return bool(status != _IDLE)

    def end(self, connection: Any) -> None:
        """Roll back; a connection that was left inside of a block or pipeline is given up."""
        if self.driver_connection(connection)._pipeline is not None:
            raise psycopg.OperationalError("the connection was given back in pipeline mode")
        connection.rollback()

    def send(self, connection: Any, message: str) -> None:
        """Send commands in one message."""
        driver_connection = self.owned(connection)
        with driver_connection.lock:
            driver_connection.wait(driver_connection.send_gen(message.encode()))


class AsyncPsycopg(Psycopg):
    """psycopg 3, asynchronous: SQLAlchemy has its own connection around the driver's."""

    def __init__(self) -> None:
        """Name the class of connections."""
        super().__init__(AsyncTenantConnection)

    def install(self, engine: Engine) -> None:
        """Have the engine connect with this class."""
        event.listen(engine, "do_connect", _choose_class)

    def driver_connection(self, connection: Any) -> Any:
        """Return the connection inside."""
        return connection.driver_connection

    def send(self, connection: Any, message: str) -> None:
        """Send commands in one message."""

        async def run(driver_connection: AsyncTenantConnection) -> None:
            async with driver_connection.lock:
                await driver_connection.wait(driver_connection.send_gen(message.encode()))

        self.owned(connection)
        connection.run_async(run)


def _choose_class(_dialect: object, _record: object, _arguments: object, options: Any) -> None:
    options.setdefault("async_creator_fn", AsyncTenantConnection.connect)


def _one_by_one(cursor: Any, commands: tuple[str, ...], parameters: Mapping[str, str]) -> None:
    """Execute commands, of which the last has parameters that the server itself is sent."""
    for command in commands[:-1]:
        cursor.execute(command)
    cursor.execute(commands[-1], parameters)


def driver(*, is_async: bool) -> BegunDriver:
    """Return the driver."""
    return AsyncPsycopg() if is_async else Psycopg()

"""asyncpg: its connections send the context together with BEGIN."""

import asyncio
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

import asyncpg
from asyncpg.prepared_stmt import PreparedStatement
from sqlalchemy import Engine, MetaData, event

from tenantry.config import TenancyConfig
from tenantry.drivers.begun import BegunDriver, Probed, WithBegin
from tenantry.probe import Isolation, probe
from tenantry.states import ConnectionState
from tenantry.traces import leaves_traces

# What the driver begins with, and whoever writes it by hand.
_BEGIN: Final = re.compile(r"\s*(?:begin|start\s+transaction)\b[\w\s,]*;?\s*", re.IGNORECASE)
_PLACEHOLDER: Final = re.compile(r"%%|%\((\w+)\)s")


class TenantConnection(asyncpg.Connection):
    """A connection of asyncpg on which every transaction begins with its context."""

    state: ConnectionState | None = None
    _callbacks: tuple[dict[str, set[Any]], set[Any], set[Any]] | None = None

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        """Execute commands; one that begins a transaction has the context behind it."""
        state = self.state
        if args or state is None:
            return await super().execute(query, *args, timeout=timeout)
        if not self.is_in_transaction() and _BEGIN.fullmatch(query):
            way: WithBegin = state.way  # type: ignore[assignment]
            return await self._begin(
                f"{query.rstrip().removesuffix(';')}; {way.opening(state)}", timeout
            )
        self.watch(query)
        return await super().execute(query, timeout=timeout)

    async def _begin(self, message: str, timeout: float | None) -> str:
        try:
            return await super().execute(message, timeout=timeout)
        except asyncpg.PostgresError:
            # Whoever sent it takes it for not begun, and would neither end it nor begin again.
            self._top_xact = None
            if not self.is_closed() and self.is_in_transaction():
                await super().execute("rollback")
            raise
        except (TimeoutError, asyncio.CancelledError):
            # The server may begin yet, where nobody knows of it.
            self.terminate()
            raise

    # What is executed, and what it could leave behind

    def watch(self, query: object) -> None:
        """Take note of what is about to be executed."""
        state = self.state
        if state is not None and not state.traces:
            state.traces = leaves_traces(query, None, state.isolation.steady_functions)

    async def prepare(self, query: str, **kwargs: Any) -> PreparedStatement:
        """Prepare a statement that is watched whenever it is executed."""
        prepared = await super().prepare(query, **kwargs)
        return _WatchedStatement(self, query, prepared._state)

    async def _get_statement(self, query: str, *args: Any, **kwargs: Any) -> Any:
        self.watch(query)
        return await super()._get_statement(query, *args, **kwargs)

    async def _copy_in(self, *args: Any) -> str:
        self.watch(None)
        return await super()._copy_in(*args)

    async def _copy_out(self, *args: Any) -> str:
        self.watch(None)
        return await super()._copy_out(*args)

    async def copy_records_to_table(self, *args: Any, **kwargs: Any) -> str:
        """Copy records into a table."""
        self.watch(None)
        return await super().copy_records_to_table(*args, **kwargs)

    def lend(self) -> None:
        """Remember whom the application as such wants to be told of messages."""
        if self._callbacks is None:
            listeners = {name: set(callbacks) for name, callbacks in self._listeners.items()}
            self._callbacks = listeners, set(self._log_listeners), set(self._query_loggers)

    async def end(self) -> None:
        """Roll back what is open, however it was begun.

        Raises:
            asyncpg.InterfaceError: the connection is closed, or what was cancelled on it is not
                over, so that nobody can tell what is open.
        """
        self._check_open()
        if self._protocol._is_cancelling():
            raise asyncpg.InterfaceError("the connection was given back in a cancelled command")
        # Of a block that nobody ended the next one would be a part.
        self._top_xact = None
        if self.is_in_transaction():
            await self.execute("rollback")

    def forget(self) -> None:
        """Tell later users' messages to nobody else."""
        if self._callbacks is not None:
            listeners, logs, queries = self._callbacks
            self._listeners = {name: set(callbacks) for name, callbacks in listeners.items()}
            self._log_listeners, self._query_loggers = set(logs), set(queries)


class _WatchedStatement(PreparedStatement):
    """A prepared statement that tells its connection when it is used."""

    __slots__ = ()

    def _check_conn_validity(self, meth_name: str) -> None:
        # Each public method begins with this.
        self._connection.watch(self._query)
        super()._check_conn_validity(meth_name)


class Asyncpg(BegunDriver):
    """asyncpg, which SQLAlchemy has its own connection around."""

    def __init__(self) -> None:
        """Name the class of connections."""
        super().__init__("postgresql+asyncpg", TenantConnection)

    def install(self, engine: Engine) -> None:
        """Have the engine connect with this class."""
        event.listen(engine, "do_connect", _choose_class)

    def driver_connection(self, connection: Any) -> Any:
        """Return the connection inside."""
        return connection.driver_connection

    def examine(
        self, connection: Any, config: TenancyConfig, metadata: MetaData | None
    ) -> Isolation:
        """Probe the connection."""
        own = self.owned(connection)
        probed = Probed(
            connection,
            pid=own.get_server_pid(),
            user=own._params.user,
            set_autocommit=partial(_set_autocommit, connection),
        )
        return probe(probed, config, metadata, execute=_numbered)

    def in_transaction(self, connection: Any) -> bool:
        """Tell whether the server has been told to begin."""
        return bool(connection.driver_connection.is_in_transaction())

    def end(self, connection: Any) -> None:
        """Roll back what is open, however it was begun."""
        connection.rollback()
        connection.run_async(lambda own: own.end())

    def send(self, connection: Any, message: str) -> None:
        """Send commands in one message."""
        self.owned(connection)
        try:
            connection.run_async(lambda own: own.execute(message))
        except asyncpg.PostgresError as error:
            connection._handle_exception(error)


def _set_autocommit(connection: Any, value: bool) -> None:
    # Its own `autocommit` goes back to what the engine asked for, which may be AUTOCOMMIT.
    if value:
        connection.isolation_level = "autocommit"
    elif connection.autocommit:
        connection.isolation_level = None


def _choose_class(dialect: Any, _record: object, _arguments: object, options: Any) -> None:
    options.setdefault("connection_class", TenantConnection)
    options.setdefault("async_creator_fn", partial(_connect, dialect.loaded_dbapi))


async def _connect(dbapi: Any, **options: Any) -> Any:
    """Connect, and have a refusal be the DB-API's error, as other drivers do."""
    try:
        return await asyncpg.connect(**options)
    except (OSError, asyncpg.PostgresError) as error:
        raise dbapi.OperationalError(str(error)) from error


def _numbered(cursor: Any, commands: tuple[str, ...], parameters: Mapping[str, str]) -> None:
    """Execute commands, of which the last has parameters: $1 and so on."""
    for command in commands[:-1]:
        cursor.execute(command)
    names: list[str] = []

    def number(match: re.Match[str]) -> str:
        name = match.group(1)
        if name is None:
            return "%"
        if name not in names:
            names.append(name)
        return f"${names.index(name) + 1}"

    query = _PLACEHOLDER.sub(number, commands[-1])
    cursor.execute(query, tuple(parameters[name] for name in names))


def driver(*, is_async: bool) -> Asyncpg:  # noqa: ARG001 - it is never anything else
    """Return the driver."""
    return Asyncpg()

"""psycopg2: cursors of the layer's own carry the context, in each scope and way."""

from typing import Any, Final

from psycopg2 import extensions
from sqlalchemy import Engine, MetaData, event

from tenantry.config import ContextWay, Mode, Scope, TenancyConfig
from tenantry.connections import TenantConnection
from tenantry.context import setting_query
from tenantry.drivers import DISCARD, Driver
from tenantry.exceptions import ConfigurationError
from tenantry.probe import Isolation, probe
from tenantry.states import ConnectionState, Way
from tenantry.ways import Folded, Prefixed, Separate, outside_transaction

_IDLE: Final = extensions.TRANSACTION_STATUS_IDLE


class Psycopg2(Driver):
    """The driver that interpolates on the client and begins with the first cursor."""

    guards_cursors = True
    always_local = False
    discard = f"deallocate all; {DISCARD}"

    def check(self, *, mode: Mode, scope: Scope, context: ContextWay) -> None:
        """Pass everything."""

    def install(self, engine: Engine) -> None:
        """Have connections made whose cursors carry the context, and can be guarded."""
        event.listen(engine, "do_connect", _choose_class)

    def examine(
        self, connection: Any, config: TenancyConfig, metadata: MetaData | None
    ) -> Isolation:
        """Probe the connection."""
        return probe(connection, config, metadata)

    def way(
        self,
        connection: Any,
        isolation: Isolation,
        config: TenancyConfig,
        context: ContextWay,
        *,
        local: bool,
    ) -> Way:
        """Return the way that was asked for, or the quickest that is known to do."""
        own = isinstance(connection, TenantConnection)
        if context in {"prefix", "begin"} and (isolation.citus or not own):
            raise ConfigurationError(
                f"context {context!r} was asked for, and "
                + (
                    "Citus refuses a query that is sent together with another command"
                    if isolation.citus
                    else "the engine's connections are of a class of its own, whose cursors carry "
                    "no context: leave connection_factory out of connect_args"
                )
                + ", or use context 'auto' or 'separate'"
            )
        known = own and isolation.postgresql is not None
        if context == "separate" or (context == "auto" and not known):
            return Separate()
        query = setting_query(config, local=local, version=isolation.postgresql)
        return Folded(query) if context == "begin" else Prefixed(query)

    def attach(self, connection: Any, state: ConnectionState) -> None:
        """Let a connection of the layer's own know its state; others do where there is a wall."""
        if isinstance(connection, TenantConnection):
            connection.state = state
            connection.guarded = state.guarded
        elif state.guarded:
            raise ConfigurationError(
                "explicit filters are the only wall here, and the engine's connections are of a "
                "class of its own, whose raw cursors would go round them: leave connection_factory "
                "out of connect_args"
            )

    def state(self, connection: Any) -> ConnectionState | None:
        """Return what the connection was told by `attach`."""
        state: ConnectionState | None = getattr(connection, "state", None)
        return state

    def lend(self, connection: Any) -> None:
        """Remember nothing: the driver keeps no callbacks."""

    def end(self, connection: Any) -> None:
        """Roll back what is open, however it was begun."""
        if connection.get_transaction_status() != _IDLE:
            connection.rollback()
        if connection.get_transaction_status() != _IDLE:
            # One that was begun by hand, which the driver does not know of in AUTOCOMMIT.
            self.send(connection, "rollback")

    def forget(self, connection: Any) -> None:
        """Forget what the server told the last user."""
        del connection.notices[:], connection.notifies[:]

    def send(self, connection: Any, message: str) -> None:
        """Send commands in one message, in autocommit."""
        outside_transaction(connection, lambda cursor: cursor.execute(message))

    def overlooks(self, connection: Any) -> bool:
        """Tell whether the connection is of a class of the application's own."""
        return not isinstance(connection, TenantConnection)


def _choose_class(_dialect: object, _record: object, _arguments: object, options: Any) -> None:
    options.setdefault("connection_factory", TenantConnection)


def driver(*, is_async: bool) -> Driver:  # noqa: ARG001 - it is never asynchronous
    """Return the driver."""
    return Psycopg2()

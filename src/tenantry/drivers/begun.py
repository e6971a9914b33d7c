"""What drivers share that begin each transaction with a message of their own.

The context goes with that message, whatever began the transaction: no cursor, COPY or block of the
driver's can come before it. It ends with its transaction on the server, so that what runs outside
of one finds no tenant, and nothing has to be cleared when it is over.
"""

from abc import abstractmethod
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final

from tenantry.config import ContextWay, Mode, Scope, TenancyConfig
from tenantry.context import CLOSE, ContextQuery, Tenant, function_query
from tenantry.drivers import DISCARD, Driver
from tenantry.exceptions import ConfigurationError
from tenantry.probe import Isolation
from tenantry.states import ConnectionState, Unknown, Way

# Those that the driver keeps for itself are prepared by its protocol, and stay.
_DEALLOCATE: Final = """
do $$
declare prepared text;
begin
  for prepared in select name from pg_catalog.pg_prepared_statements where from_sql loop
    execute pg_catalog.format('deallocate %I', prepared);
  end loop;
end $$"""


class WithBegin(Way):
    """The context goes with BEGIN, in the same message."""

    waits = True

    def __init__(self, driver: "BegunDriver", query: ContextQuery) -> None:
        """Take what renders a tenant, and the driver that sends it."""
        self.driver = driver
        self.query = query

    def announce(self, connection: Any, state: ConnectionState, tenant: Tenant | None) -> bool:
        """Send it where the transaction has begun; where it has not, it goes with its BEGIN."""
        begun = self.driver.in_transaction(connection)
        if begun:
            query = self.query(tenant)
            changes = state.changes_to(tenant)
            self.driver.send(connection, f"{CLOSE}; {query}" if changes else query)
        return not begun

    def repeat(self, connection: Any, state: ConnectionState, tenant: Tenant | None) -> None:
        """Send it again, where something can have been taken back."""
        self.announce(connection, state, tenant)

    def opening(self, state: ConnectionState) -> str:
        """Render what goes with BEGIN: no tenant where none was announced for this transaction."""
        written = state.written
        return self.query(None if isinstance(written, Unknown) else written)


class BegunDriver(Driver):
    """A driver of this kind."""

    guards_cursors = False
    always_local = True
    discard = f"{DISCARD}; {_DEALLOCATE}"

    def __init__(self, name: str, own: type) -> None:
        """Name the driver, and the class that its connections have to be of."""
        self.name = name
        self.own = own

    def check(self, *, mode: Mode, scope: Scope, context: ContextWay) -> None:
        """Refuse what these drivers have no need or no means of."""
        if scope == "session":
            raise ConfigurationError(
                f"scope 'session' was asked for, and with {self.name} the tenant goes with each "
                "BEGIN and ends with its transaction: use scope 'auto' or 'transaction'"
            )
        if context != "auto":
            raise ConfigurationError(
                f"context {context!r} was asked for, and {self.name} sends BEGIN by itself, with "
                "which the tenant goes at no cost: leave it at 'auto', or use postgresql+psycopg2"
            )
        if mode == "filters":
            raise ConfigurationError(
                f"mode 'filters' was asked for, and the cursors of {self.name} cannot be kept from "
                "going round explicit filters: put the database's wall in place and use mode "
                "'auto', 'database' or 'both', or use postgresql+psycopg2"
            )

    def way(
        self,
        connection: Any,  # noqa: ARG002 - the driver's connections are all alike
        isolation: Isolation,
        config: TenancyConfig,
        context: ContextWay,  # noqa: ARG002 - there is one
        *,
        local: bool,
    ) -> Way:
        """Return the one way that there is."""
        if isolation.citus:
            raise ConfigurationError(
                f"Citus wants the tenant in commands of their own, which {self.name} does not send "
                "here: use postgresql+psycopg2"
            )
        return WithBegin(self, function_query(config, local=local))

    def attach(self, connection: Any, state: ConnectionState) -> None:
        """Let the connection know its state."""
        self.owned(connection).state = state

    def state(self, connection: Any) -> ConnectionState | None:
        """Return what the connection was told by `attach`."""
        state: ConnectionState | None = getattr(self.driver_connection(connection), "state", None)
        return state

    def overlooks(self, connection: Any) -> bool:  # noqa: ARG002 - they are all alike
        """Tell that nothing can."""
        return False

    def lend(self, connection: Any) -> None:
        """Remember what the connection is like before somebody uses it."""
        self.driver_connection(connection).lend()

    def forget(self, connection: Any) -> None:
        """Forget what the driver itself holds of the connection's last user."""
        self.driver_connection(connection).forget()

    def owned(self, connection: Any) -> Any:
        """Return the driver's own connection, if the layer had it made.

        Raises:
            ConfigurationError: it is of another class.
        """
        driver_connection = self.driver_connection(connection)
        # Not isinstance(), which asyncpg has say yes to each class of connections.
        if self.own not in type(driver_connection).__mro__:
            raise ConfigurationError(
                f"the engine's connections are {type(driver_connection).__qualname__}, which "
                "carries no tenant: leave creator, async_creator, async_creator_fn and "
                "connection_class out of the engine's arguments"
            )
        return driver_connection

    @abstractmethod
    def driver_connection(self, connection: Any) -> Any:
        """Return the driver's own connection, around which SQLAlchemy may have its own."""

    @abstractmethod
    def in_transaction(self, connection: Any) -> bool:
        """Tell whether the server has been told to begin."""


class Probed:
    """A connection under the names that psycopg2 has for the probe's needs."""

    def __init__(
        self, connection: Any, *, pid: int, user: str, set_autocommit: Callable[[bool], None]
    ) -> None:
        """Take SQLAlchemy's connection, what the start-up handshake told, and what switches it."""
        self.connection = connection
        self._pid = pid
        self._user = user
        self._set_autocommit = set_autocommit

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction."""
        return bool(self.connection.autocommit)

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._set_autocommit(value)

    def cursor(self) -> Any:
        """Open a cursor, to be closed by `with`, which adapted ones have from SQLAlchemy 2.1 on."""
        return closing(self.connection.cursor())

    def rollback(self) -> None:
        """End the transaction."""
        self.connection.rollback()

    def get_backend_pid(self) -> int:
        """Return the backend's process id, as the handshake told it."""
        return self._pid

    def get_dsn_parameters(self) -> dict[str, str]:
        """Return whom the connection was made as."""
        return {"user": self._user}

"""What depends on the driver, one module for each, imported with the first engine that uses it."""

import importlib
from abc import ABC, abstractmethod
from typing import Any, Final

from sqlalchemy import Engine, MetaData

from tenantry.config import ContextWay, Mode, Scope, TenancyConfig
from tenantry.exceptions import ConfigurationError
from tenantry.probe import Isolation
from tenantry.states import ConnectionState, Way

_MODULES: Final = {"psycopg2": "psycopg2", "psycopg": "psycopg", "asyncpg": "asyncpg"}

# What one tenant could leave behind on a pooled connection for the next one: open cursors,
# temporary tables, subscriptions, advisory locks. Not DISCARD ALL, which would undo what the
# application sets when it connects; and prepared statements are left to each driver.
# Row security that is switched off shows nobody's rows: the next user's queries fail.
DISCARD: Final = (
    "close all; discard temp; unlisten *; reset row_security; "
    "select pg_catalog.pg_advisory_unlock_all()"
)


class Driver(ABC):
    """What the layer asks of a driver; `connection` is SQLAlchemy's, of the driver or adapted.

    Attributes:
        guards_cursors: raw cursors can be kept from going round explicit filters.
        always_local: the setting always ends with its transaction.
        discard: clears away what one user of a connection leaves for the next.
    """

    guards_cursors: bool
    always_local: bool
    discard: str

    @abstractmethod
    def check(self, *, mode: Mode, scope: Scope, context: ContextWay) -> None:
        """Pass what this driver can do.

        Raises:
            ConfigurationError: it cannot do this; the message names the way out.
        """

    @abstractmethod
    def install(self, engine: Engine) -> None:
        """Have the engine's connections made as this driver carries the context."""

    @abstractmethod
    def examine(
        self, connection: Any, config: TenancyConfig, metadata: MetaData | None
    ) -> Isolation:
        """Probe the connection.

        Raises:
            ConfigurationError: it is of a class of the application's own, which does not do here.
        """

    @abstractmethod
    def way(
        self,
        connection: Any,
        isolation: Isolation,
        config: TenancyConfig,
        context: ContextWay,
        *,
        local: bool,
    ) -> Way:
        """Return the way in which the context reaches this server."""

    @abstractmethod
    def attach(self, connection: Any, state: ConnectionState) -> None:
        """Let the connection know its state.

        Raises:
            ConfigurationError: it is of a class of the application's own, which does not do here.
        """

    @abstractmethod
    def state(self, connection: Any) -> ConnectionState | None:
        """Return what the connection was told by `attach`; None if it was told nothing."""

    @abstractmethod
    def lend(self, connection: Any) -> None:
        """Remember what the connection is like before somebody uses it."""

    @abstractmethod
    def end(self, connection: Any) -> None:
        """Roll back what is open, however it was begun."""

    @abstractmethod
    def forget(self, connection: Any) -> None:
        """Forget what the driver itself holds of the connection's last user."""

    @abstractmethod
    def send(self, connection: Any, message: str) -> None:
        """Send commands in one message, outside of a transaction that is not open already."""

    @abstractmethod
    def overlooks(self, connection: Any) -> bool:
        """Tell whether something can be executed on the connection that the layer does not see."""


def driver_of(engine: Engine) -> Driver:
    """Return what the layer has for the engine's driver.

    Raises:
        ConfigurationError: it has nothing for it.
    """
    name = engine.dialect.driver
    if engine.dialect.name != "postgresql" or name not in _MODULES:
        raise ConfigurationError(
            f"engine {engine.url.drivername!r} cannot be protected: use postgresql+psycopg2, "
            "postgresql+psycopg or postgresql+asyncpg"
        )
    # Named here, not imported above: nobody needs to have all drivers installed.
    module = importlib.import_module(f"tenantry.drivers.{_MODULES[name]}")
    driver: Driver = module.driver(is_async=engine.dialect.is_async)
    return driver

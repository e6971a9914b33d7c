"""What the layer knows of a physical connection, and the interface of the ways to its server."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tenantry.context import ContextWriter, Tenant
from tenantry.probe import Isolation


class Unknown:
    """Stands, where a tenant or None would be, for one that is not known."""


UNKNOWN: Final = Unknown()


class Way(Protocol):
    """How a transaction's context reaches the server.

    Attributes:
        waits: a context may wait for the first message of its transaction.
    """

    waits: bool

    def announce(self, connection: Any, state: "ConnectionState", tenant: Tenant | None) -> bool:
        """See to it that no later message of this transaction finds another tenant in place.

        Returns:
            Whether the server is told before anything else of this transaction.
        """

    def repeat(self, connection: Any, state: "ConnectionState", tenant: Tenant | None) -> None:
        """Say it again before the next message: the server may have gone back to another tenant."""

    def carry(self, _connection: Any, send: Callable[[str], None]) -> None:
        """Have the first message sent, given what this way puts in front of the context."""
        send("")


@dataclass(slots=True)
class ConnectionState:
    """What the layer knows of one physical connection; lives in `Connection.info`.

    Attributes:
        isolation: what the probe found.
        write: tells the server who the tenant is, in a message of its own.
        way: how a transaction's context reaches the server.
        clear: says that there is no tenant, until something else is said.
        local: the setting ends with the transaction.
        guarded: explicit filters are the only wall.
        written: what the server was told last, or will be by its next message, and still holds.
        told: what it was told last in this transaction, whether it still holds or not.
        written_at_begin: what it was told all through the transaction, so that it goes back to
            nothing else with ROLLBACK TO a savepoint; UNKNOWN if it was told several.
        pending: the query that tells it, to go in front of the next message.
        holds: the tenant that the session may have, whatever is committed or rolled back.
        own: the tenant that is bound to the Connection, not to a Session on it.
        traces: something may be left in the session for its next user.
        autocommit: what the driver has when the connection comes from the pool; None before.
        turn: counts the statements that the layer has passed.
    """

    isolation: Isolation
    write: ContextWriter
    way: Way
    clear: str
    local: bool
    guarded: bool
    written: Tenant | Unknown | None = UNKNOWN
    told: Tenant | Unknown | None = UNKNOWN
    written_at_begin: Tenant | Unknown | None = UNKNOWN
    pending: str | None = None
    holds: Tenant | Unknown | None = None
    own: Tenant | None = None
    traces: bool = True
    autocommit: bool | None = None
    turn: int = 0

    def changes_to(self, tenant: Tenant | None) -> bool:
        """Whether this transaction was another tenant's, or nobody's, whose cursors may be open."""
        return self.told is not UNKNOWN and self.told != tenant

    def end_transaction(self) -> None:
        """Forget what the transaction was told; the next one is told anew."""
        self.written, self.told, self.pending = UNKNOWN, UNKNOWN, None
        if self.local:
            self.holds = None

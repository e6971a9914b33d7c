"""What the layer knows of a physical connection, and the interface of the ways to its server."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from sqlalchemy import Connection

from tenantry.binding import Binding
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
        written_at_begin: what it was told all through the transaction, so that it goes back to
            nothing else with ROLLBACK TO a savepoint; UNKNOWN if it was told several.
        pending: the query that tells it, to go in front of the next message.
        holds: the tenant that the session may have, whatever is committed or rolled back.
        own: the tenant that is bound to the Connection, not to a Session on it.
        traces: something may be left in the session for its next user.
        autocommit: what the driver has when the connection comes from the pool; None before.
        references: to the Sessions that have used the connection; some may be gone.
        outer_tenant: that of the statement in whose midst this one is executed.
    """

    isolation: Isolation
    write: ContextWriter
    way: Way
    clear: str
    local: bool
    guarded: bool
    written: Tenant | Unknown | None = UNKNOWN
    written_at_begin: Tenant | Unknown | None = UNKNOWN
    pending: str | None = None
    holds: Tenant | Unknown | None = None
    own: Tenant | None = None
    traces: bool = True
    autocommit: bool | None = None
    references: list[weakref.ref[Binding]] = field(default_factory=list)
    outer_tenant: Tenant | None = None

    @property
    def users(self) -> list[Binding]:
        """The Sessions that have used the connection and still exist."""
        users = [reference() for reference in self.references]
        return [user for user in users if user is not None]

    def users_on(self, connection: Connection) -> list[Binding]:
        """Return the Sessions that are in a transaction on this Connection."""
        users = []
        for reference in self.references:
            user = reference()
            if user is not None and user.uses(connection):
                users.append(user)
        return users

    def add_user(self, binding: Binding) -> None:
        """Note that a Session is using the connection."""
        others = [each for each in self.references if each() not in {None, binding}]
        self.references = [*others, binding.reference]

    def end_transaction(self) -> None:
        """Forget what the transaction was told; the next one is told anew."""
        self.written, self.pending = UNKNOWN, None
        if self.local:
            self.holds = None

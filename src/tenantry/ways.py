"""The ways in which a transaction's context reaches the server.

A message costs a round trip, and most transactions begin with a query: the context can travel in
front of it, in the same message. What goes round the cursors that see to this must not find another
tenant in place, so a context waits for the first message only where the session holds nothing, or
the same tenant; otherwise it is sent at once.
"""

from collections.abc import Callable
from typing import Any, Final

from psycopg2 import extensions

from tenantry.connections import TenantConnection
from tenantry.context import ContextQuery, Tenant
from tenantry.states import UNKNOWN, ConnectionState

_IDLE: Final = extensions.TRANSACTION_STATUS_IDLE
_BEGUN: Final = extensions.TRANSACTION_STATUS_INTRANS


class Separate:
    """The context is a message of its own, as soon as the transaction begins."""

    waits = False

    def announce(self, connection: Any, state: ConnectionState, tenant: Tenant | None) -> bool:
        """Send it, in place of another that a rollback would bring back."""
        holds, ready = state.holds, connection.status == extensions.STATUS_READY
        if ready and not state.local and holds not in {None, tenant}:
            replace_session_tenant(connection, state, tenant)
            return False
        state.pending = None
        # What interrupts this may have come after the server took it.
        state.holds = UNKNOWN
        begun = connection.get_transaction_status() != _IDLE
        with extensions.cursor(connection) as cursor:
            state.write(cursor, tenant, close_cursors=begun and state.changes_to(tenant))
        alone = connection.status == extensions.STATUS_READY
        state.holds = tenant if alone or holds in {None, tenant} else UNKNOWN
        return False

    def repeat(self, connection: Any, state: ConnectionState, tenant: Tenant | None) -> None:
        """Send it again, where there is a transaction of which something can be taken back."""
        if connection.get_transaction_status() == _BEGUN:
            self.announce(connection, state, tenant)

    def carry(self, _: TenantConnection, send: Callable[[str], None]) -> None:
        """Send the message as it is."""
        send("")


class Prefixed(Separate):
    """The context goes in front of the transaction's first message."""

    waits = True

    def __init__(self, query: ContextQuery) -> None:
        """Take what renders a tenant."""
        self.query = query
        self.nobody = query(None)

    def announce(self, connection: Any, state: ConnectionState, tenant: Tenant | None) -> bool:
        """Have it wait for the first message; send it if that was, or if all are the first."""
        if (
            connection.get_transaction_status() != _IDLE
            or connection.autocommit
            or connection.status != extensions.STATUS_READY
        ):
            return super().announce(connection, state, tenant)
        holds = state.holds
        if not (state.local or holds is None or holds is tenant or holds == tenant):
            replace_session_tenant(connection, state, tenant)
        elif tenant is not None:
            state.holds = tenant
        state.pending = self.nobody if tenant is None else self.query(tenant)
        return True

    def repeat(self, connection: Any, state: ConnectionState, tenant: Tenant | None) -> None:
        """Have it go in front of the next message, or alone where all are the first."""
        if connection.autocommit:
            super().repeat(connection, state, tenant)
        else:
            state.pending = self.nobody if tenant is None else self.query(tenant)


class Folded(Prefixed):
    """The context and BEGIN go in front of the transaction's first message."""

    def carry(self, connection: TenantConnection, send: Callable[[str], None]) -> None:
        """Begin the transaction with the message, where it begins as the server's default says."""
        connection.fold(send)


def replace_session_tenant(connection: Any, state: ConnectionState, tenant: Tenant | None) -> None:
    """Replace what the session of an idle connection holds, for good."""
    state.pending = None
    state.holds = UNKNOWN
    outside_transaction(connection, lambda cursor: state.write(cursor, tenant))
    state.holds = tenant


def outside_transaction(connection: Any, act: Callable[[Any], None]) -> None:
    """Run commands on an idle connection, each message its own transaction."""
    autocommit = connection.autocommit
    connection.autocommit = True
    try:
        with extensions.cursor(connection) as cursor:
            act(cursor)
    finally:
        if not connection.closed:
            connection.autocommit = autocommit

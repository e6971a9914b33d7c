"""Which tenant a Session has, and which one a Connection that several use is to run for."""

import weakref
from collections.abc import Iterable

from sqlalchemy import Connection
from sqlalchemy.orm import Session

from tenantry.context import Tenant
from tenantry.exceptions import TenantSwitchError


class Binding:
    """The tenant of one Session, and the connections that its transaction is using."""

    __slots__ = ("__weakref__", "connections", "reference", "session", "tenant")

    def __init__(self, session: Session) -> None:
        """Bind nothing yet."""
        self.session = weakref.ref(session)
        self.reference = weakref.ref(self)
        self.tenant: Tenant | None = None
        self.connections: list[Connection] = []

    @property
    def active(self) -> bool:
        """Whether the Session is in a transaction; a Connection may outlive it."""
        session = self.session()
        return session is not None and session.in_transaction()

    def uses(self, connection: Connection) -> bool:
        """Whether the Session is in a transaction on this Connection."""
        return self.active and connection in self.connections


def agreed_tenant(own: Tenant | None, users: Iterable[Binding]) -> Tenant | None:
    """Return the one tenant that a Connection runs for: its own, or that of all its users.

    A Session without a tenant takes the Connection's own.

    Raises:
        TenantSwitchError: they are of different tenants, so that one would see the other's rows.
    """
    tenants = {user.tenant or own for user in users}
    if own is not None:
        tenants.add(own)
    if len(tenants) > 1:
        names = " and for ".join(sorted(str(tenant or "no tenant") for tenant in tenants))
        raise TenantSwitchError(
            f"one Connection is in use for {names} at the same time: give each Session a "
            "Connection of its own, and end its transaction before another tenant's begins"
        )
    return next(iter(tenants), None)

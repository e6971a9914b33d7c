"""Which tenant a Session has, and which one a Connection that several use is to run for."""

import weakref
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection
from sqlalchemy.orm import Session
from sqlalchemy.orm.session import SessionTransactionState

from tenantry.context import Tenant
from tenantry.exceptions import TenantSwitchError


class Binding:
    """The tenant of one Session.

    Which connections its transaction has is the Session's own knowledge, and asked of it: no event
    tells of all of them, since listeners of the application's may come first, and may raise.

    Source: SQLAlchemy, `SessionTransaction._connections`.
    """

    __slots__ = ("session", "tenant")

    def __init__(self, session: Session) -> None:
        """Bind nothing yet."""
        self.session = weakref.ref(session)
        self.tenant: Tenant | None = None

    @property
    def connections(self) -> list[Connection]:
        """The Connections that the Session's transaction has; there may be none yet."""
        session = self.session()
        transaction = None if session is None else session.get_transaction()
        if transaction is None:
            return []
        return list(dict.fromkeys(entry[0] for entry in transaction._connections.values()))

    def uses(self, connection: Connection) -> bool:
        """Whether the Session is in a transaction on this Connection."""
        session = self.session()
        transaction = None if session is None else session._transaction
        while transaction is not None:
            if connection in transaction._connections:
                return True
            transaction = transaction._parent
        return False

    @property
    def begins(self) -> bool:
        """Whether the Session is just getting a Connection, which it does not have yet."""
        session = self.session()
        transaction = None if session is None else session._transaction
        return transaction is not None and transaction._state is _PROVISIONING


_PROVISIONING: Final = SessionTransactionState.PROVISIONING_CONNECTION

# Kept with the Connection and not with what is behind it: a Session stays on its Connection when
# that is given another physical one in place of one that was lost.
_USERS: Final = "tenantry_users"


def add_user(connection: Connection, binding: Binding) -> None:
    """Note that a Session works on this Connection, or will."""
    users: list[Binding] | None = vars(connection).get(_USERS)
    if users is None:
        vars(connection)[_USERS] = [binding]
    elif binding not in users:
        users[:] = [*users_of(connection), binding]


def users_of(connection: Connection) -> list[Binding]:
    """Return the Sessions that have worked on the Connection, or will, and still exist."""
    return [each for each in vars(connection).get(_USERS, ()) if each.session() is not None]


def users_on(connection: Connection) -> list[Binding]:
    """Return the Sessions that are in a transaction on this Connection."""
    users = []
    for each in vars(connection).get(_USERS, ()):
        if each.uses(connection):
            users.append(each)  # noqa: PERF401 - asked at each statement: a comprehension is a call
    return users


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

"""The tenant of the code that is running: what a published task inherits."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token

from tenantry.context import Tenant

_tenant: ContextVar[Tenant | None] = ContextVar("tenantry_task_tenant", default=None)

# Id and name of a task that a worker's main process deals with, without executing it.
handled: ContextVar[tuple[str, str] | None] = ContextVar("tenantry_handled_task", default=None)

# Id of the task whose record is being dispatched.
recorded_task: ContextVar[str | None] = ContextVar("tenantry_recorded_task", default=None)


def current_tenant() -> Tenant | None:
    """Return the tenant of the running task, or of the enclosing `publishing_for`; or None."""
    return _tenant.get()


@contextmanager
def publishing_for(tenant: Tenant | None) -> Iterator[None]:
    """Publish tasks for this tenant inside the block, and for the one before it afterwards."""
    token = enter(tenant)
    try:
        yield
    finally:
        leave(token)


def enter(tenant: Tenant | None) -> Token[Tenant | None]:
    """Make a tenant the current one; the token brings the one before it back."""
    return _tenant.set(tenant)


def leave(token: Token[Tenant | None]) -> None:
    """Bring the tenant back that was current before `enter`."""
    _tenant.reset(token)

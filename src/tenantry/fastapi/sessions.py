"""The Session of a request: bound to whoever was authenticated, committed before the response."""

import functools
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.concurrency import contextmanager_in_threadpool
from sqlalchemy.orm import Session

from tenantry.context import Principal
from tenantry.fastapi.installation import sessions_of
from tenantry.fastapi.turns import turns_of
from tenantry.sessions import tenant_scope


def tenant_session(principal: Callable[..., Any]) -> Any:
    """Return the dependency of a Session that sees the principal's rows and nobody else's.

    The tenant is carried by the Session, not by the thread, so that sync and async routes are the
    same to it. A request is one transaction: committed once the response is made and before it is
    sent, so that a commit that fails is an error to the client too; rolled back by any exception,
    HTTPException included. What `task_launcher(db=session)` launched is dispatched in between.
    After that the Session is closed for good: a stream or a background task that uses it fails.

    There are never more such requests than connections, less one: the others wait for their turn
    without a thread, at most as long as the pool lets them wait. What takes its time before the
    database is needed, such as receiving a file, belongs into a dependency in front of this one.

    A Session blocks its thread: an `async def` route uses it through `run_in_threadpool`.

    Give the alias a name, and routes need no more:

        TenantSession = Annotated[Session, tenant_session(current_user)]

    Args:
        principal: the dependency that authenticates a request, or raises. It must not hold a
            connection of the same pool when it returns: requests that wait for one another's
            connections would never end.

    Raises:
        ConfigurationError: from the request, if the application has no `install_tenancy`.
        InvalidTenantError: from the request, if the principal's ids are none.
        sqlalchemy.exc.TimeoutError: from the request, if its turn does not come.

    Source: FastAPI, "Dependencies with yield", `scope="function"` (from 0.121); SQLAlchemy,
    `Session.close_resets_only`.
    """

    async def session_of(
        request: Request, authenticated: Annotated[Principal, Depends(principal)]
    ) -> AsyncIterator[Session]:
        sessions = functools.partial(sessions_of(request.app), close_resets_only=False)
        scope = tenant_scope(authenticated.organization_id, authenticated.id, sessions=sessions)
        async with turns_of(request.app).take(), contextmanager_in_threadpool(scope) as session:
            yield session

    return Depends(session_of, scope="function")

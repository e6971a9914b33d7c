"""Tasks that run for their tenant: base class, session, decorator."""

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, Final, ParamSpec, TypeVar, cast

import celery
from billiard.einfo import ExceptionInfo
from celery.canvas import Signature
from celery.exceptions import Reject, SoftTimeLimitExceeded
from sqlalchemy.orm import Session

from tenantry.celery.executions import current
from tenantry.celery.guards import GuardedTask
from tenantry.celery.installation import tenancy_of
from tenantry.celery.recording import admit, correct, hand_over, recorded
from tenantry.celery.scope import current_tenant
from tenantry.exceptions import DatabaseUnreachableError, MissingTenantError, TenancyError
from tenantry.sessions import set_tenant

_P = ParamSpec("_P")
_R = TypeVar("_R")


# A database that cannot be reached is there again when it has been restarted.
_LASTING: Final = tuple(
    kind for kind in TenancyError.__subclasses__() if kind is not DatabaseUnreachableError
)


class BaseTask(GuardedTask):
    """A task that runs for the tenant it was published for, or not at all, and leaves a record.

    It is retried on any exception but those of `dont_autoretry_for`, three times, after a random
    part of 1, 2, 4 … seconds, 600 at most. Where the application keeps records, a task id that has
    ended is not executed again, and one that runs elsewhere waits until its worker's lease is over.

    Class attributes:
        tenant_free: set by `@tenant_free`; the task runs without a tenant.
        record: False leaves no record: no status, no outbox, no second dispatch.
    """

    abstract = True
    tenant_free: ClassVar[bool] = False
    record: ClassVar[bool] = True

    autoretry_for: ClassVar[tuple[type[BaseException], ...]] = (Exception,)
    # Reject is an answer to the broker; none of the others goes away by trying again. What took too
    # long once would hold a worker as long three times more.
    dont_autoretry_for: ClassVar[tuple[type[BaseException], ...]] = (
        Reject,
        SoftTimeLimitExceeded,
        *_LASTING,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
    )
    max_retries = 3
    retry_backoff = True
    retry_backoff_max = 600
    retry_jitter = True
    track_started = True

    def before_start(self, task_id: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Refuse to start without a proven tenant, or where the record says that it must not.

        Raises:
            RefusedMessageError: the message's tenant is missing, altered or forged.
            MissingTenantError: it was published without a tenant.
            Ignore: the task has ended before, or runs elsewhere.
        """
        super().before_start(task_id, args, kwargs)
        execution = current(self.request)
        self._check(execution is not None and execution.tenant is not None)
        if execution is not None:
            admit(self, execution, args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; called directly, for the tenant of the caller.

        Raises:
            MissingTenantError: called directly where there is no tenant.
        """
        execution = current(self.request)
        if execution is None or execution.entered:
            self._check(current_tenant() is not None)
            return super().__call__(*args, **kwargs)
        execution.entered = True
        # Once more, for a subclass whose before_start() does not call this one's.
        if execution.refusal is not None:
            self.refuse_forged()
        self._check(execution.tenant is not None)
        if execution.attempt is None:
            return self.run(*args, **kwargs)
        with recorded(self, execution, execution.attempt):
            return self.run(*args, **kwargs)

    def on_replace(self, sig: Signature) -> Any:
        """Leave the record to the task that takes this one's place and id."""
        execution = current(self.request)
        if execution is not None:
            hand_over(self, execution)
        return super().on_replace(sig)

    def on_failure(
        self,
        exc: Exception,
        task_id: str,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Record a failure of what comes after the task's own code, such as storing its result."""
        execution = current(self.request)
        if execution is not None and not execution.failed:
            correct(self, execution, exc)
        super().on_failure(exc, task_id, args, kwargs, einfo)

    def _check(self, has_tenant: bool) -> None:
        if not has_tenant and not self._is_tenant_free():
            raise MissingTenantError(
                f"task {self.name!r} has no tenant: launch it with task_launcher(), or inside "
                "publishing_for(); mark it @tenant_free if it works for none"
            )

    def _is_tenant_free(self) -> bool:
        return self.tenant_free or getattr(inspect.unwrap(self.run), "tenant_free", False)


def tenant_free(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Mark a task's function as one that works for no tenant; it sees no tenant's rows."""
    function.tenant_free = True  # type: ignore[attr-defined]
    return function


@contextmanager
def get_db_session() -> Iterator[Session]:
    """Open a Session for the running task's tenant: committed at the end, or rolled back.

    It may be committed in between: the next transaction runs for the same tenant.

    Raises:
        MissingTenantError: no task with a tenant is running.
    """
    task = celery.current_task
    tenant = current_tenant()
    if not task or tenant is None:
        raise MissingTenantError(
            "get_db_session() was called where no task with a tenant is running: outside of "
            "tasks use tenant_scope()"
        )
    with tenancy_of(task.app).sessions() as session:
        set_tenant(session, tenant.organization_id, tenant.user_id)
        yield session
        # A Session that was asked for nothing has no transaction, nor does it get one now.
        if session.in_transaction():
            session.commit()


def with_tenant_context(function: Callable[..., _R]) -> Callable[..., _R]:
    """Hand the task a Session that is already in the right tenant, as its parameter `db`.

    For bound (`bind=True`) and unbound tasks: `db` is the first parameter after `self`. The Session
    is committed when the task returns and rolled back when it raises.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> _R:
        # Only a bound task has its Task as first argument: a message cannot carry one.
        own, rest = (
            (args[:1], args[1:]) if args and isinstance(args[0], celery.Task) else ((), args)
        )
        with get_db_session() as db:
            return function(*own, db, *rest, **kwargs)

    # Celery checks a caller's arguments against this signature.
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    position = 1 if parameters and parameters[0].name == "self" else 0
    del parameters[position]
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return cast("Callable[..., _R]", run)

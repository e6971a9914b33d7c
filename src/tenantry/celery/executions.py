"""The execution that a worker is in the middle of: for whom, since when, and its record."""

import time
from collections.abc import Sequence
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any, Final

from celery import Task
from celery.app.task import Context

from tenantry.celery.carrier import HEADER
from tenantry.celery.ledger import Attempt
from tenantry.context import Tenant
from tenantry.exceptions import RefusedMessageError

_ATTRIBUTE: Final = "tenantry_execution"

# What a message says of itself, eagerness included, anyone may have written.
eager_call: ContextVar[bool] = ContextVar("tenantry_eager_call", default=False)


@dataclass(slots=True)
class Execution:
    """One run through Celery's tracer, from `task_prerun` to `task_postrun`.

    Attributes:
        tenant: that the message was sealed for, or that the eager caller had.
        refusal: why the message is not believed; the task must not be executed.
        token: brings the tenant from before back.
        recorded: the task is known to have a record, or to have had one.
        attempt: what is recorded, once the record has admitted this execution.
        entered: whether the task's own code was called; what it calls itself is another matter.
        failed: whether its failure is recorded.
        began: on the monotonic clock.
    """

    tenant: Tenant | None
    refusal: RefusedMessageError | None
    token: Token[Tenant | None]
    recorded: bool = False
    attempt: Attempt | None = None
    entered: bool = False
    failed: bool = False
    began: float = field(default_factory=time.monotonic)

    @property
    def runtime(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self.began


def attach(request: Context, execution: Execution) -> None:
    """Make it the execution of a request, in place of whatever a message has put there."""
    setattr(request, _ATTRIBUTE, execution)


def detach(request: Context) -> Execution | None:
    """Return a request's execution and take it away."""
    execution = current(request)
    if execution is not None:
        setattr(request, _ATTRIBUTE, None)
    return execution


def current(request: Context) -> Execution | None:
    """Return the execution that the request belongs to; None in a direct call."""
    execution = getattr(request, _ATTRIBUTE, None)
    return execution if isinstance(execution, Execution) else None


def describe(task: Task, tenant: Tenant, args: Sequence[Any], kwargs: dict[str, Any]) -> Attempt:
    """Return the execution of a task's current request, for its record."""
    request = task.request
    return Attempt(
        tenant=tenant,
        task_id=request.id,
        name=task.name,
        retries=request.retries or 0,
        worker=request.hostname,
        args=tuple(args),
        kwargs=dict(kwargs),
        options=_options(request),
    )


def disarm(request: Context) -> None:
    """Let nothing run that a message wants to be run after its task."""
    request.callbacks = request.errbacks = request.chain = request.chord = request.group = None


def _options(request: Context) -> dict[str, Any]:
    """Return what else it takes to publish the message once more, where it says anything else."""
    options = {
        name: value
        for name, value in request.as_execution_options().items()
        if value not in (None, [], {}, 0) and name not in {"task_id", "headers", "retries"}
    }
    if options.get("root_id") == request.id:
        del options["root_id"]
    custom = {k: v for k, v in (request.headers or {}).items() if k not in {HEADER, "stamps"}}
    return options | ({"headers": custom} if custom else {})

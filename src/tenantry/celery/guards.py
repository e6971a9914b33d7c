"""What every task of an application has in common: no forged message gets it to run."""

from collections.abc import Sequence
from typing import Any

import celery
from celery.result import EagerResult

from tenantry.celery.executions import current, disarm, eager_call
from tenantry.exceptions import RefusedMessageError


class GuardedTask(celery.Task):
    """A task that does not start for a message that is not sealed, for a tenant or for none.

    `install_tenancy` makes it the base of all tasks of the application, Celery's own included:
    otherwise those could be told to publish, or to call, a task that is sealed for none.
    """

    abstract = True
    Request = "tenantry.celery.requests:RecordedRequest"

    def apply(self, *args: Any, **options: Any) -> EagerResult:
        """Execute the task here and now, for the tenant of the caller."""
        token = eager_call.set(True)
        try:
            return super().apply(*args, **options)
        finally:
            eager_call.reset(token)

    def before_start(self, task_id: str, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
        """Refuse to start for a forged message.

        Raises:
            RefusedMessageError: the message's tenant is missing, altered or forged.
        """
        super().before_start(task_id, args, kwargs)
        self.refuse_forged()

    def refuse_forged(self) -> None:
        """Raise RefusedMessageError if the current request's message is not believed."""
        execution = current(self.request)
        refusal = (
            RefusedMessageError(f"a message for {self.name!r} could not be examined")
            if execution is None
            else execution.refusal
        )
        if refusal is not None:
            # Nor may it choose what runs because it failed.
            disarm(self.request)
            raise refusal

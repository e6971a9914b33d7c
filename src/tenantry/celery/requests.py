"""What becomes of a task outside the process that runs it: time limits, lost processes, revocation.

Celery's worker learns of these in its main process, where no task runs and no tenant is bound.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from billiard.exceptions import TimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

from tenantry.celery.carrier import HEADER
from tenantry.celery.executions import disarm
from tenantry.celery.installation import tenancy_of
from tenantry.celery.ledger import Attempt, Ledger
from tenantry.celery.recording import ledger_of
from tenantry.celery.records import TaskState
from tenantry.celery.scope import handled, publishing_for
from tenantry.exceptions import RefusedMessageError

logger = logging.getLogger("tenantry.celery")


class RecordedRequest(Request):
    """A message that the worker has received, whose end is recorded where the task cannot.

    What Celery publishes because of that end, errbacks above all, is published for its tenant.
    """

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """Record a task that was killed at its time limit; a soft limit is the task's to handle."""
        with self._its_tenant():
            super().on_timeout(soft, timeout)
        if not soft:
            # Before Celery 5.6 one setting stood for failures and time limits.
            task = self.task
            acknowledged = getattr(task, "acks_on_timeout", task.acks_on_failure_or_timeout)
            again = task.acks_late and not acknowledged
            self._record(
                TaskState.DISPATCHED if again else TaskState.FAILURE,
                f"{TimeLimitExceeded.__name__}: {timeout} s",
            )

    def on_failure(
        self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False
    ) -> Any:
        """Record a task whose process died: as failed or, where it comes again, as dispatched."""
        error = exc_info.exception
        if isinstance(error, ExceptionWithTraceback):
            error = error.exc
        if isinstance(error, TimeLimitExceeded):
            # Celery calls on_timeout() next, which does all of this once more, errbacks included.
            return None
        with self._its_tenant():
            answer = super().on_failure(exc_info, send_failed_event, return_ok)
        if isinstance(error, WorkerLostError):
            again = self.task.acks_late and self.task.reject_on_worker_lost
            self._record(
                TaskState.DISPATCHED if again else TaskState.FAILURE,
                f"{WorkerLostError.__name__}: {error}",
            )
        return answer

    def _announce_revoked(
        self, reason: str, terminated: bool, signum: str | None, expired: bool
    ) -> None:
        with self._its_tenant():
            super()._announce_revoked(reason, terminated, signum, expired)
        self._record(TaskState.REVOKED, reason)

    def revoked(self) -> bool:
        """Return whether the task is not to be executed any more; a message may have expired."""
        with self._its_tenant():
            return bool(super().revoked())

    @contextmanager
    def _its_tenant(self) -> Iterator[None]:
        """Let what is run, published and logged because the task ended be its tenant's."""
        tenant = None
        try:
            tenant = tenancy_of(self.task.app).carrier.open(
                self.request_dict.get(HEADER), self.id, self.name, self._payload
            )
        except RefusedMessageError:
            disarm(self._context)
        token = handled.set((self.id, self.name))
        try:
            with publishing_for(tenant):
                yield
        finally:
            handled.reset(token)

    def _record(self, state: TaskState, error: str) -> None:
        """Record an end; what goes wrong here must not stop the worker."""
        try:
            known = self._attempt()
            if known is None:
                return
            ledger, attempt = known
            if state is TaskState.DISPATCHED:
                ledger.return_(attempt)
            else:
                ledger.finish(attempt, state, error=error)
        except RefusedMessageError as error_:
            logger.warning("%s", error_)
        except Exception:
            logger.exception("the end of task %s[%s] was not recorded", self.name, self.id)

    def _attempt(self) -> tuple[Ledger, Attempt] | None:
        ledger = ledger_of(self.task)
        if ledger is None:
            return None
        tenant = tenancy_of(self.task.app).carrier.open(
            self.request_dict.get(HEADER), self.id, self.name, self._payload
        )
        if tenant is None:
            return None
        retries = self.request_dict.get("retries") or 0
        return ledger, Attempt(
            tenant=tenant, task_id=self.id, name=self.name, retries=retries, worker=self.hostname
        )

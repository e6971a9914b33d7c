"""What a worker tells a task's record: that the task begins, and how it ends."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import Task
from celery.exceptions import Ignore, Reject, Retry
from kombu.exceptions import OperationalError
from sqlalchemy.exc import DBAPIError

from tenantry.celery import leases
from tenantry.celery.executions import Execution, describe
from tenantry.celery.installation import tenancy_of
from tenantry.celery.ledger import Admission, Attempt, Entry, Ledger, is_transient
from tenantry.celery.records import TaskState, summarize
from tenantry.exceptions import DatabaseUnreachableError, TenancyError

logger = logging.getLogger("tenantry.celery")

_RETRY_SECONDS: Final = 10


def ledger_of(task: Task) -> Ledger | None:
    """Return where the task's executions are recorded; None if they are not."""
    return tenancy_of(task.app).ledger if getattr(task, "record", False) else None


def admit(task: Task, execution: Execution, args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """Return if the record lets the execution begin; it is noted as begun then, and has a lease.

    Raises:
        Ignore: the task has ended, or its record was purged, or a newer attempt is under way, or it
            runs elsewhere: then its message comes again when the lease of that worker is over.
        Retry: the database cannot be reached.
    """
    ledger = ledger_of(task)
    if ledger is None or execution.tenant is None:
        return
    attempt = describe(task, execution.tenant, args, kwargs)
    try:
        admission = ledger.start(attempt, recorded=execution.recorded)
    except (DBAPIError, DatabaseUnreachableError) as error:
        if not is_transient(error):
            raise
        raise task.retry(exc=error, countdown=_RETRY_SECONDS) from error
    if admission.entry is Entry.GONE:
        logger.warning(
            "the record of task %s[%s] of %s is gone; not executed",
            attempt.name,
            attempt.task_id,
            attempt.tenant,
        )
        task.backend.mark_as_revoked(attempt.task_id, "its record is gone")
        raise Ignore(f"record: {admission.entry.value}")
    execution.recorded = True
    if admission.entry is Entry.GRANTED:
        execution.attempt = attempt
        leases.hold(ledger, attempt)
        return
    what = f"task {attempt.name}[{attempt.task_id}] of {attempt.tenant} was delivered again"
    if admission.entry is Entry.RUNNING:
        logger.warning(
            "%s while it runs; put off for %.0f s, until its worker's lease is over",
            what,
            admission.seconds,
        )
        task.signature_from_request(
            task.request,
            attempt.args,
            attempt.kwargs,
            countdown=admission.seconds,
            retries=attempt.retries,
        ).apply_async()
    elif admission.entry is Entry.FINISHED:
        logger.warning("%s after its end (%s); not executed", what, admission.state)
        _restore(task, attempt, admission)
    else:
        logger.warning("%s, and a later attempt is due; not executed", what)
    raise Ignore(f"record: {admission.entry.value}")


def correct(task: Task, execution: Execution, error: Exception) -> None:
    """Record that what comes after the task's own code failed, though that had succeeded."""
    ledger, attempt = ledger_of(task), execution.attempt
    if ledger is not None and attempt is not None:
        with _settled(execution, attempt):
            ledger.finish(
                attempt,
                TaskState.FAILURE,
                runtime=execution.runtime,
                error=summarize(error),
                correct=True,
            )


def hand_over(task: Task, execution: Execution) -> None:
    """Leave the record to the message that is about to be published with the same task id."""
    ledger, attempt = ledger_of(task), execution.attempt
    if ledger is not None and attempt is not None:
        execution.attempt = None
        leases.drop(attempt)
        ledger.return_(attempt)


@contextmanager
def recorded(task: Task, execution: Execution, attempt: Attempt) -> Iterator[None]:
    """Record how the block ends, before Celery's own result tells anybody."""
    ledger = ledger_of(task)
    if ledger is None:
        yield
        return
    try:
        yield
    except Retry as retry:
        with _settled(execution, attempt):
            ledger.defer(
                attempt,
                until=_moment(retry.when),
                error=summarize(retry.exc or retry),
                runtime=execution.runtime,
            )
        raise
    except Reject as reject:
        with _settled(execution, attempt):
            _record_rejection(ledger, execution, attempt, reject)
        raise
    except Ignore:
        # on_replace() has handed the record on; otherwise the task has seen to its own state.
        with _settled(execution, attempt):
            if execution.attempt is not None:
                ledger.finish(attempt, TaskState.SUCCESS, runtime=execution.runtime)
        raise
    except Exception as error:
        execution.failed = True
        with _settled(execution, attempt):
            ledger.finish(
                attempt, TaskState.FAILURE, runtime=execution.runtime, error=summarize(error)
            )
        raise
    else:
        with _settled(execution, attempt):
            ledger.finish(attempt, TaskState.SUCCESS, runtime=execution.runtime)
    finally:
        leases.drop(attempt)


def _record_rejection(
    ledger: Ledger, execution: Execution, attempt: Attempt, reject: Reject
) -> None:
    if reject.requeue:
        ledger.return_(attempt)
    elif isinstance(reject.reason, OperationalError):
        # A retry whose message the broker did not take: the sweeper sends it.
        ledger.defer(attempt, until=None, error=summarize(reject.reason), runtime=execution.runtime)
    else:
        ledger.finish(
            attempt, TaskState.FAILURE, runtime=execution.runtime, error=summarize(reject)
        )


@contextmanager
def _settled(execution: Execution, attempt: Attempt) -> Iterator[None]:
    """Let an outcome stand that cannot be recorded; the sweeper finds the expired lease."""
    try:
        yield
    except (DBAPIError, TenancyError):
        logger.exception(
            "the outcome of task %s[%s] of %s could not be recorded after %.1f s",
            attempt.name,
            attempt.task_id,
            attempt.tenant,
            execution.runtime,
        )


def _restore(task: Task, attempt: Attempt, admission: Admission) -> None:
    """Put back the result that STARTED has just overwritten; Celery itself keeps a SUCCESS."""
    if admission.state is TaskState.REVOKED:
        task.backend.mark_as_revoked(attempt.task_id, admission.error or "revoked")
    elif admission.state is TaskState.FAILURE:
        task.backend.mark_as_failure(
            attempt.task_id, RuntimeError(admission.error or ""), call_errbacks=False
        )


def _moment(when: datetime | float | None) -> datetime | None:
    if when is None or isinstance(when, datetime):
        return when
    return datetime.now(UTC) + timedelta(seconds=when)

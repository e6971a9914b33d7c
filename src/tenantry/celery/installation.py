"""Installs the tenant layer on a Celery application."""

import logging
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import celery
from celery import Celery, Task, signals
from sqlalchemy import inspect
from sqlalchemy.orm import Session

from tenantry.celery import leases
from tenantry.celery.carrier import HEADER, Carrier, is_recorded
from tenantry.celery.executions import Execution, attach, current, detach, eager_call
from tenantry.celery.guards import GuardedTask
from tenantry.celery.ledger import Deadlines, Ledger
from tenantry.celery.records import TaskRecordMixin
from tenantry.celery.scope import current_tenant, enter, leave, recorded_task
from tenantry.celery.transports import install_transports
from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import ConfigurationError, RefusedMessageError
from tenantry.sessions import SessionLocal

logger = logging.getLogger("tenantry.celery")

_ATTRIBUTE: Final = "tenantry"
_CELERYS_CONSUMER: Final = "celery.worker.consumer:Consumer"
_OUR_CONSUMER: Final = "tenantry.celery.intake:Intake"
# For a publisher, who has a caller that waits. A worker tries for longer: it has a result to store.
_BRISK: Final = {"retry_policy": {"timeout": 2.0}}
_ID_TYPES: Final = {"uuid": uuid.UUID, "bigint": int, "integer": int}
_OUR_SCHEDULER: Final = "tenantry.celery.schedule:RecoveringScheduler"

Sessions = Callable[[], Session]


@dataclass(slots=True)
class TaskTenancy:
    """The tenant layer of one Celery application."""

    carrier: Carrier
    sessions: Sessions
    ledger: Ledger | None = None

    def tenant_of(
        self, task: Task, task_id: str, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> Tenant | None:
        """Return the tenant that the running task's message was sealed for; None for none.

        An eager or direct call has no message: it runs for the tenant of its caller.

        Raises:
            RefusedMessageError: the message does not prove whose it is.
        """
        request = task.request
        # A message can call itself eager; a guarded task knows better.
        eager = request.is_eager and (eager_call.get() or not isinstance(task, GuardedTask))
        if eager or request.called_directly:
            return current_tenant()
        if request.id != task_id:
            claimed, request.id = request.id, task_id
            raise RefusedMessageError(
                f"message {task_id} for {task.name!r} says in its body that it is {claimed!r}"
            )
        embedded = {
            name: getattr(request, name) for name in ("callbacks", "errbacks", "chain", "chord")
        }
        return self.carrier.open(request.get(HEADER), task_id, task.name, (args, kwargs, embedded))


def install_tenancy(
    app: Celery,
    *,
    key: str,
    sessions: Sessions = SessionLocal,
    records: type[TaskRecordMixin] | None = None,
    deadlines: Deadlines | None = None,
    config: TenancyConfig = DEFAULT_CONFIG,
) -> None:
    """Make every task of the application run for the tenant that published it, and no other.

    Each message published from this process is sealed with the current tenant, by whatever way it
    is published: a task's own publications inherit its tenant. A worker opens the seal before it
    runs a task, and comes back to no tenant after it. Each forked child gets connections of its
    own. Brokers on PostgreSQL and Redis are read by `tenantry.celery.transports` in this process,
    and beat, unless `beat_scheduler` is set, gets a scheduler that outlives its connection.

    Args:
        app: the application; called once for each.
        key: shared by publishers and workers, 32 bytes or more.
        sessions: makes the Sessions that tasks are handed, and those that records are written with.
        records: the mapped class of the task records; None keeps none.
        deadlines: after which the sweeper sees to a task, and the length of a worker's lease.
        config: what the database calls its tenants.

    Raises:
        ConfigurationError: the key is too short, the application has the layer already, its
            tasks have been made, or its records are not of that configuration.
    """
    if hasattr(app, _ATTRIBUTE):
        raise ConfigurationError(f"the tenant layer is installed on {app.main!r} already")
    if "Task" in vars(app):
        raise ConfigurationError(
            f"the tasks of {app.main!r} have been made without the tenant layer: call "
            "install_tenancy() right after Celery()"
        )
    if records is not None:
        _check_records(records, config)
    if app.task_cls == Celery.task_cls:
        app.task_cls = GuardedTask
    ledger = None if records is None else Ledger(records, sessions, deadlines or Deadlines())
    tenancy = TaskTenancy(Carrier(key, config=config), sessions, ledger)
    setattr(app, _ATTRIBUTE, tenancy)
    # Only to send a message, a publisher would wait ten seconds for a database of results that is
    # down, whose tables are made when first used as well, and nineteen for such a Redis.
    app.add_defaults(
        {
            "database_create_tables_at_setup": False,
            "beat_scheduler": _OUR_SCHEDULER,
            "result_backend_transport_options": _BRISK,
        }
    )
    install_transports()

    def seal(sender: str, body: Sequence[Any], headers: dict[str, Any], **_: Any) -> None:
        task_id = headers["id"]
        headers[HEADER] = tenancy.carrier.seal(
            current_tenant(), task_id, sender, body, recorded=_has_record(task_id)
        )

    def bind(
        task_id: str, task: Task, args: Sequence[Any], kwargs: dict[str, Any], **_: Any
    ) -> None:
        if task.app is not app:
            return
        tenant, refusal, recorded = None, None, False
        try:
            tenant = tenancy.tenant_of(task, task_id, args, kwargs)
            recorded = is_recorded(task.request.get(HEADER))
        except RefusedMessageError as error:
            # Here Celery would only log it; the task refuses to start.
            logger.warning("%s", error)
            refusal = error
        attach(task.request, Execution(tenant, refusal, enter(tenant), recorded))

    def release(task: Task, **_: Any) -> None:
        execution = detach(task.request)
        if execution is not None:
            if execution.attempt is not None:
                leases.drop(execution.attempt)
            leave(execution.token)

    def take_in(instance: Any, conf: Any, **_: Any) -> None:
        if instance.app is not app:
            return
        if conf.worker_consumer == _CELERYS_CONSUMER:
            conf.worker_consumer = _OUR_CONSUMER
        if conf.result_backend_transport_options == _BRISK:
            conf.result_backend_transport_options = {}

    signals.celeryd_init.connect(take_in, weak=False)
    signals.before_task_publish.connect(seal, weak=False)
    signals.task_prerun.connect(bind, weak=False)
    signals.task_postrun.connect(release, weak=False)


def _check_records(records: type[TaskRecordMixin], config: TenancyConfig) -> None:
    column = inspect(records).columns["organization_id"]
    if column.name == config.tenant_column and column.type.python_type is _ID_TYPES[config.id_type]:
        return
    raise ConfigurationError(
        f"{records.__name__} keeps the tenant in the column {column.name!r} of type "
        f"{column.type!r}, but the tenancy that install_tenancy() was given has "
        f"{config.tenant_column!r} of type {config.id_type}: its table would have no wall. "
        f"Override organization_id in {records.__name__}, or keep no records"
    )


def _has_record(task_id: str) -> bool:
    """Tell whether the task that is published has a record: it is launched, or tried again."""
    if recorded_task.get() == task_id:
        return True
    task = celery.current_task
    if not task or task.request.id != task_id:
        return False
    execution = current(task.request)
    return execution is not None and execution.recorded


def tenancy_of(app: Celery) -> TaskTenancy:
    """Return the tenant layer of an application.

    Raises:
        ConfigurationError: it has none.
    """
    tenancy: TaskTenancy | None = getattr(app, _ATTRIBUTE, None)
    if tenancy is None:
        raise ConfigurationError(
            f"Celery application {app.main!r} has no tenant layer: call install_tenancy(app, …)"
        )
    return tenancy

"""Celery on the tenant layer: each task runs for the tenant that published it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tenantry.context import Principal
from tenantry.extras import extras

with extras():
    from tenantry.celery.broker import broker_url, result_backend_url, task_key
    from tenantry.celery.chords import bound_chords
    from tenantry.celery.fanout import for_each_tenant
    from tenantry.celery.installation import install_tenancy
    from tenantry.celery.launcher import task_launcher
    from tenantry.celery.ledger import Deadlines
    from tenantry.celery.logs import install_logging
    from tenantry.celery.records import TaskRecordMixin, TaskState
    from tenantry.celery.scope import current_tenant, publishing_for
    from tenantry.celery.sweeper import Sweep, add_sweeper, sweep
    from tenantry.celery.tasks import BaseTask, get_db_session, tenant_free, with_tenant_context

if TYPE_CHECKING:
    from tenantry.celery.metrics import install_metrics as install_metrics

__all__ = [
    "BaseTask",
    "Deadlines",
    "Principal",
    "Sweep",
    "TaskRecordMixin",
    "TaskState",
    "add_sweeper",
    "bound_chords",
    "broker_url",
    "current_tenant",
    "for_each_tenant",
    "get_db_session",
    "install_logging",
    "install_tenancy",
    "publishing_for",
    "result_backend_url",
    "sweep",
    "task_key",
    "task_launcher",
    "tenant_free",
    "with_tenant_context",
]


def __getattr__(name: str) -> Any:
    # prometheus_client is optional, and makes its files as soon as there is something to count: not
    # for `import *`, either.
    if name == "install_metrics":
        with extras():
            return import_module("tenantry.celery.metrics").install_metrics
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

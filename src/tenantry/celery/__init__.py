"""Celery on the tenant layer: each task runs for the tenant that published it."""

from tenantry.celery.installation import install_tenancy
from tenantry.celery.launcher import Principal, task_launcher
from tenantry.celery.ledger import Deadlines
from tenantry.celery.records import TaskRecordMixin, TaskState
from tenantry.celery.scope import current_tenant, publishing_for
from tenantry.celery.tasks import BaseTask, get_db_session, tenant_free, with_tenant_context

__all__ = [
    "BaseTask",
    "Deadlines",
    "Principal",
    "TaskRecordMixin",
    "TaskState",
    "current_tenant",
    "get_db_session",
    "install_tenancy",
    "publishing_for",
    "task_launcher",
    "tenant_free",
    "with_tenant_context",
]

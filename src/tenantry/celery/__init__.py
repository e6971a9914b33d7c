"""Celery on the tenant layer: each task runs for the tenant that published it."""

from tenantry.celery.installation import install_tenancy
from tenantry.celery.scope import current_tenant, publishing_for
from tenantry.celery.tasks import BaseTask, get_db_session, tenant_free, with_tenant_context

__all__ = [
    "BaseTask",
    "current_tenant",
    "get_db_session",
    "install_tenancy",
    "publishing_for",
    "tenant_free",
    "with_tenant_context",
]

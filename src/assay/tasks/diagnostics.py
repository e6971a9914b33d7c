"""Tasks that show whether a worker works, and for whom."""

from typing import Any

from assay.services.configurations import count_sets
from assay.services.runs import database_tenant
from assay.worker import app
from tenantry.celery import BaseTask, current_tenant, get_db_session


@app.task(base=BaseTask, name="assay.tasks.diagnostics.echo")
def echo(message: str) -> dict[str, Any]:
    """Return the message, and the tenant that the task runs for."""
    tenant = current_tenant()
    return {
        "message": message,
        "organization_id": None if tenant is None else str(tenant.organization_id),
        "user_id": None if tenant is None or tenant.user_id is None else str(tenant.user_id),
    }


@app.task(base=BaseTask, name="assay.tasks.diagnostics.manual_db_example")
def manual_db_example() -> dict[str, Any]:
    """Open two Sessions, one after the other: each is a transaction of the task's tenant.

    For work that must not hold a transaction all along, such as waiting for another service.
    """
    with get_db_session() as first:
        before = count_sets(first)
    with get_db_session() as second:
        return {"before": before, "after": count_sets(second), "tenant": database_tenant(second)}

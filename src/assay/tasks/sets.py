"""Tasks that read what an organization has."""

import uuid
from dataclasses import asdict
from typing import Any

from sqlalchemy.orm import Session

from assay.services.configurations import count_sets, describe_configuration
from assay.worker import app
from tenantry.celery import BaseTask, with_tenant_context


@app.task(base=BaseTask, name="assay.tasks.test_set.count_test_sets")
@with_tenant_context
def count_test_sets(db: Session) -> dict[str, Any]:
    """Return how many sets of tests the tenant has."""
    return {"test_sets": count_sets(db)}


@app.task(base=BaseTask, name="assay.tasks.test_configuration.get_test_configuration")
@with_tenant_context
def get_test_configuration(db: Session, configuration_id: str) -> dict[str, Any]:
    """Return what a configuration runs, and against what."""
    found = describe_configuration(db, uuid.UUID(configuration_id))
    return asdict(found) | {"id": str(found.id), "test_set_id": str(found.test_set_id)}

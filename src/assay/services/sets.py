"""Sets of tests, seen by the organization that owns them."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from assay.database import SessionLocal
from assay.models import TestSet, TestSetTest
from tenantry import tenant_scope


@dataclass(frozen=True, slots=True)
class SetSummary:
    """A set of tests and how many it holds."""

    id: uuid.UUID
    name: str
    tests: int


def list_sets(
    organization_id: uuid.UUID, *, sessions: Callable[[], Session] = SessionLocal
) -> list[SetSummary]:
    """Return the organization's sets of tests by name."""
    query = (
        select(TestSet.id, TestSet.name, func.count(TestSetTest.test_id))
        .outerjoin(TestSetTest, TestSetTest.test_set_id == TestSet.id)
        .group_by(TestSet.id, TestSet.name)
        .order_by(TestSet.name)
    )
    with tenant_scope(organization_id, sessions=sessions) as session:
        return [SetSummary(*row) for row in session.execute(query)]

"""Sets of tests, seen by the organization that owns them."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from assay.database import SessionLocal
from assay.exceptions import DuplicateTestSetError, InUseError, UnknownTestSetError
from assay.models import TestConfiguration, TestSet, TestSetTest
from assay.services.constraints import flush
from assay.services.pages import Page, read_page
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


def create_set(session: Session, name: str, description: str = "") -> TestSet:
    """Create an empty set of the Session's organization.

    Raises:
        DuplicateTestSetError: the organization has a set of this name.
    """
    created = TestSet(id=uuid.uuid4(), name=name, description=description)
    session.add(created)
    _flush(session, name)
    return created


def get_set(session: Session, set_id: uuid.UUID, *, lock: bool = False) -> TestSet:
    """Return a set of the Session's organization.

    Raises:
        UnknownTestSetError: the organization has no such set, whoever else may have one.
    """
    query = select(TestSet).where(TestSet.id == set_id)
    found = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise UnknownTestSetError("there is no such set of tests")
    return found


def change_set(
    session: Session, set_id: uuid.UUID, *, name: str | None = None, description: str | None = None
) -> TestSet:
    """Change what is given of a set of the Session's organization.

    Raises:
        UnknownTestSetError: the organization has no such set.
        DuplicateTestSetError: the organization has another set of this name.
    """
    found = get_set(session, set_id)
    if name is not None:
        found.name = name
    if description is not None:
        found.description = description
    _flush(session, found.name)
    session.refresh(found)
    return found


def delete_set(session: Session, set_id: uuid.UUID) -> None:
    """Delete a set that no configuration names; its tests stay, outside of it.

    Raises:
        UnknownTestSetError: the organization has no such set.
        InUseError: a configuration names it.
    """
    # Locked first: a configuration that is being made for it waits, or is seen.
    found = get_set(session, set_id, lock=True)
    if session.scalar(select(exists().where(TestConfiguration.test_set_id == set_id))):
        raise InUseError("a test configuration names the set: delete or change that first")
    session.delete(found)
    session.flush()


def page_of_sets(session: Session, *, size: int, after: str | None = None) -> Page[TestSet]:
    """Return a part of the list of the organization's sets, oldest first.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    return read_page(session, select(TestSet), TestSet, size=size, after=after)


def _flush(session: Session, name: str) -> None:
    error = DuplicateTestSetError(f"the organization already has a set of tests named {name!r}")
    flush(session, {"uq_test_sets_organization_id_name": error})

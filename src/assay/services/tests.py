"""The tests of a set, in their order, seen by the organization that owns them."""

import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from assay.exceptions import BrokenRowError, InvalidValueError, UnknownTestError
from assay.models import Metric, Test, TestResult, TestSetTest
from assay.services.imports.expressions import Expressions
from assay.services.imports.layouts import GENERIC, Row
from assay.services.imports.records import Record
from assay.services.pages import Page
from assay.services.sets import get_set


def create_test(session: Session, set_id: uuid.UUID, fields: Mapping[str, Any]) -> Test:
    """Create a test at the end of a set of the Session's organization.

    Args:
        session: of the organization.
        set_id: of the set.
        fields: `prompt`, `expected`, `metric` and, where there are any, `category` and `reference`.

    Raises:
        UnknownTestSetError: the organization has no such set.
        InvalidValueError: the rules of an import would refuse it.
    """
    row = checked_row(fields)
    # Two that are added at once wait for one another, and get a place each.
    get_set(session, set_id, lock=True)
    last = session.scalar(
        select(func.max(TestSetTest.position)).where(TestSetTest.test_set_id == set_id)
    )
    created = Test(
        id=uuid.uuid4(),
        prompt=row.prompt,
        expected=row.expected,
        metric=row.metric,
        category=row.category,
        reference=row.reference,
    )
    session.add(created)
    session.flush()
    session.add(TestSetTest(test_set_id=set_id, test_id=created.id, position=(last or 0) + 1))
    session.flush()
    return created


def get_test(session: Session, set_id: uuid.UUID, test_id: uuid.UUID) -> Test:
    """Return a test that the set holds.

    Raises:
        UnknownTestError: it holds none of this id, or the organization has no such set.
    """
    found = session.scalars(
        select(Test)
        .join(TestSetTest, TestSetTest.test_id == Test.id)
        .where(TestSetTest.test_set_id == set_id, Test.id == test_id)
    ).one_or_none()
    if found is None:
        raise UnknownTestError("there is no such test in the set")
    return found


def change_test(
    session: Session, set_id: uuid.UUID, test_id: uuid.UUID, fields: Mapping[str, Any]
) -> Test:
    """Change what is given of a test, in every set that holds it.

    Raises:
        UnknownTestError: the set holds none of this id.
        InvalidValueError: the rules of an import would refuse it.
    """
    found = get_test(session, set_id, test_id)
    before = {
        name: getattr(found, name)
        for name in ("prompt", "expected", "metric", "category", "reference")
    }
    row = checked_row(before | dict(fields))
    found.prompt, found.expected, found.metric = row.prompt, row.expected, row.metric
    found.category, found.reference = row.category, row.reference
    session.flush()
    session.refresh(found)
    return found


def remove_test(session: Session, set_id: uuid.UUID, test_id: uuid.UUID) -> None:
    """Take a test out of a set; it is deleted unless another set or a run's result has it.

    Raises:
        UnknownTestError: the set holds none of this id.
    """
    get_test(session, set_id, test_id)
    # A result that is being filed, or a set that is getting it, waits for this lock, or is seen.
    test = session.scalars(select(Test).where(Test.id == test_id).with_for_update()).one_or_none()
    place = session.scalars(
        select(TestSetTest).where(TestSetTest.test_set_id == set_id, TestSetTest.test_id == test_id)
    ).one_or_none()
    if test is None or place is None:
        raise UnknownTestError("there is no such test in the set")
    session.delete(place)
    session.flush()
    held = exists().where(TestSetTest.test_id == test_id)
    has_results = exists().where(TestResult.test_id == test_id)
    if not session.scalar(select(held | has_results)):
        session.delete(test)
        session.flush()


def page_of_tests(
    session: Session, set_id: uuid.UUID, *, size: int, after: str | None = None
) -> Page[Test]:
    """Return a part of a set's tests, in the set's order.

    The index on (organization_id, test_set_id, position) finds each page at once.

    Raises:
        UnknownTestSetError: the organization has no such set.
        InvalidValueError: `after` is not what a page gave.
    """
    get_set(session, set_id)
    query = (
        select(Test, TestSetTest.position)
        .join(TestSetTest, TestSetTest.test_id == Test.id)
        .where(TestSetTest.test_set_id == set_id)
        .order_by(TestSetTest.position)
        .limit(size + 1)
    )
    if after is not None:
        query = query.where(TestSetTest.position > _position(after))
    found = session.execute(query).all()
    more = len(found) > size
    return Page([row.Test for row in found[:size]], str(found[size - 1].position) if more else None)


def checked_row(fields: Mapping[str, Any]) -> Row:
    """Return a test as an import would store it, numbers without grouping among others.

    Raises:
        InvalidValueError: an import would refuse it.
    """
    metric = Metric(fields["metric"])
    try:
        return GENERIC.row(Record(1, {**fields, "metric": metric.value}), Expressions())
    except BrokenRowError as error:
        raise InvalidValueError(error.fault) from error


def _position(mark: str) -> int:
    if not (mark.isascii() and mark.isdecimal() and len(mark) < 10):
        raise InvalidValueError("`after` is not what a page gave as `next`")
    return int(mark)

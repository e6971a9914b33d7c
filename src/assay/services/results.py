"""Runs and their results, as their organization reads them."""

import uuid
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from assay.exceptions import EndedError, UnknownRunError
from assay.models import Test, TestResult, TestRun, Verdict
from assay.services import runs
from assay.services.pages import Page, read_page
from assay.services.tasks import CANCELLED


@dataclass(frozen=True, slots=True)
class JudgedTest:
    """What came of a test, with what was asked."""

    id: uuid.UUID
    test_id: uuid.UUID
    prompt: str
    verdict: Verdict
    received: str | None
    error: str | None
    duration_ms: int | None
    created_at: datetime


def get_run(session: Session, run_id: uuid.UUID) -> TestRun:
    """Return a run of the Session's organization.

    Raises:
        UnknownRunError: the organization has none of this id.
    """
    found = session.scalars(select(TestRun).where(TestRun.id == run_id)).one_or_none()
    if found is None:
        raise UnknownRunError("there is no such test run")
    return found


def page_of_runs(session: Session, *, size: int, after: str | None = None) -> Page[TestRun]:
    """Return a part of the list of the organization's runs, oldest first.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    return read_page(session, select(TestRun), TestRun, size=size, after=after)


def page_of_results(
    session: Session,
    run_id: uuid.UUID,
    *,
    verdict: Verdict | None = None,
    size: int,
    after: str | None = None,
) -> Page[JudgedTest]:
    """Return a part of a run's results, oldest first.

    Raises:
        UnknownRunError: the organization has no such run.
        InvalidValueError: `after` is not what a page gave.
    """
    get_run(session, run_id)
    query = select(TestResult).where(TestResult.test_run_id == run_id)
    if verdict is not None:
        query = query.where(TestResult.verdict == verdict)
    page = read_page(session, query, TestResult, size=size, after=after)
    prompts = {
        row.id: row.prompt
        for row in session.execute(
            select(Test.id, Test.prompt).where(Test.id.in_([each.test_id for each in page.items]))
        )
    }
    items = [
        JudgedTest(
            id=each.id,
            test_id=each.test_id,
            prompt=prompts[each.test_id],
            verdict=each.verdict,
            received=each.received,
            error=each.error,
            duration_ms=each.duration_ms,
            created_at=each.created_at,
        )
        for each in page.items
    ]
    return Page(items, page.next)


def cancel_run(session: Session, organization_id: uuid.UUID, run_id: uuid.UUID) -> TestRun:
    """End a run as it is, and return it.

    Raises:
        UnknownRunError: the organization has no such run.
        EndedError: it has ended.
    """
    if not runs.cancel_run(session, organization_id, run_id, reason=CANCELLED):
        raise EndedError("the run has ended, there is nothing left to cancel")
    return get_run(session, run_id)

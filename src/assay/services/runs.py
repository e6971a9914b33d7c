"""Runs: begun once for a task, completed from what is in the tables, helped when they stall.

The tests of a run are those of its configuration's set; one is missing while the run has no result
for it. Nothing is counted anywhere else, so that whoever looks last, or again, sees the same.

Every look-up names the organization and the id, a table's whole key. Where the database keeps no
wall between tenants, that is the filter.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Select, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from assay.exceptions import UnknownRunError
from assay.models import (
    Endpoint,
    Metric,
    RunStatus,
    Test,
    TestConfiguration,
    TestResult,
    TestRun,
    TestSetTest,
    Verdict,
)

_ACTIVE: Final = (RunStatus.QUEUED, RunStatus.RUNNING)


@dataclass(frozen=True, slots=True)
class Work:
    """What it takes to execute one test of a run."""

    prompt: str
    expected: list[str]
    metric: Metric
    url: str
    timeout_seconds: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a test."""

    verdict: Verdict
    received: str | None = None
    error: str | None = None
    duration_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Where a run stands.

    Attributes:
        missing: tests that a run under way has no result of.
    """

    id: uuid.UUID
    status: RunStatus
    passed: int
    failed: int
    errors: int
    missing: int
    error: str | None


def database_tenant(session: Session) -> str | None:
    """Return the organization that the database takes the transaction for; None if it knows none.

    Unlike SHOW, which fails and with it the transaction, this may be asked of a database that
    never heard of the setting.
    """
    return session.scalar(
        select(func.nullif(func.current_setting("app.current_organization", True), ""))
    )


def begin_run(
    session: Session,
    *,
    organization_id: uuid.UUID,
    configuration_id: uuid.UUID,
    task_id: uuid.UUID,
    started_by_id: uuid.UUID | None = None,
) -> uuid.UUID:
    """Return the id of the task's run, which is made if this is the first to ask.

    It is running, unless it ended before; it has failed if there is no such configuration, or no
    test in its set.
    """
    configuration = session.get(TestConfiguration, (organization_id, configuration_id))
    created = session.scalar(
        insert(TestRun)
        .values(
            id=uuid.uuid4(),
            organization_id=organization_id,
            task_id=task_id,
            started_by_id=started_by_id,
            test_configuration_id=None if configuration is None else configuration_id,
        )
        .on_conflict_do_nothing(index_elements=["organization_id", "task_id"])
        .returning(TestRun.id)
    )
    run_id = (
        created
        or session.scalars(
            select(TestRun.id).where(
                TestRun.organization_id == organization_id, TestRun.task_id == task_id
            )
        ).one()
    )
    run = _locked(session, organization_id, run_id)
    if run.status is not RunStatus.QUEUED:
        return run_id
    run.started_at = func.clock_timestamp()
    if configuration is None:
        _end(run, RunStatus.FAILED, f"there is no test configuration {configuration_id}")
    elif not session.scalar(select(exists(_tests_of(run)))):
        _end(run, RunStatus.FAILED, "the configuration's set has no tests")
    else:
        run.status = RunStatus.RUNNING
    session.flush()
    return run_id


def missing_tests(
    session: Session, organization_id: uuid.UUID, run_id: uuid.UUID
) -> list[uuid.UUID]:
    """Return the tests without a result, in the set's order; none of a run that has ended."""
    run = _run(session, organization_id, run_id)
    if run.status is not RunStatus.RUNNING:
        return []
    return list(session.scalars(_missing(run).order_by(TestSetTest.position)))


def work_of(
    session: Session, organization_id: uuid.UUID, run_id: uuid.UUID, test_id: uuid.UUID
) -> Work | None:
    """Return what it takes to execute the test; None if it has a result, or needs none any more."""
    run = _run(session, organization_id, run_id)
    if run.status is not RunStatus.RUNNING:
        return None
    row = session.execute(
        select(Test.prompt, Test.expected, Test.metric, Endpoint.url, Endpoint.timeout_seconds)
        .join_from(Test, TestConfiguration, TestConfiguration.id == run.test_configuration_id)
        .join(Endpoint, Endpoint.id == TestConfiguration.endpoint_id)
        .where(
            Test.organization_id == organization_id,
            TestConfiguration.organization_id == organization_id,
            Endpoint.organization_id == organization_id,
            Test.id == test_id,
            Test.id.in_(_missing(run)),
        )
    ).one_or_none()
    return None if row is None else Work(*row)


def file_outcome(
    session: Session,
    organization_id: uuid.UUID,
    run_id: uuid.UUID,
    test_id: uuid.UUID,
    outcome: Outcome,
) -> bool:
    """Store what came of a test, unless there is a result already or the run has ended.

    Commit it before `end_run` is asked: only then do two that finish at once see each other.

    Returns:
        Whether it was stored.
    """
    # The lock lets other results in, and keeps the run from ending until this one is committed.
    running = session.scalar(
        select(TestRun.id)
        .where(
            TestRun.organization_id == organization_id,
            TestRun.id == run_id,
            TestRun.status == RunStatus.RUNNING,
        )
        .with_for_update(read=True)
    )
    if running is None:
        return False
    return insert_results(session, organization_id, run_id, [test_id], outcome) == 1


def end_run(session: Session, organization_id: uuid.UUID, run_id: uuid.UUID) -> RunStatus:
    """End the run if none of its tests lacks a result, and return where it stands.

    Completed: every test was executed. Partial: some could not be. Failed: none could. Cancelled:
    its configuration is gone, and with it the list of its tests. Whoever comes second changes
    nothing.
    """
    run = _run(session, organization_id, run_id)
    if run.status is not RunStatus.RUNNING or session.scalar(select(exists(_missing(run)))):
        return run.status
    run = _locked(session, organization_id, run_id)
    if run.status is not RunStatus.RUNNING:
        return run.status
    if run.test_configuration_id is None:
        _end(run, RunStatus.CANCELLED, "the configuration was deleted while it was run")
    else:
        _end(run, _status(*_counts(session, run)))
    session.flush()
    return run.status


def cancel_run(
    session: Session, organization_id: uuid.UUID, run_id: uuid.UUID, *, reason: str
) -> bool:
    """End the run as it is; tests under way are not filed any more. Return whether it ran."""
    run = _locked(session, organization_id, run_id)
    if run.status not in _ACTIVE:
        return False
    _end(run, RunStatus.CANCELLED, reason)
    session.flush()
    return True


def cancel_run_of(
    session: Session,
    *,
    organization_id: uuid.UUID,
    task_id: uuid.UUID,
    configuration_id: uuid.UUID,
    reason: str,
    prevent: bool,
) -> bool:
    """End the task's run as it is, and return whether there was one to end.

    Args:
        session: of the organization.
        organization_id: whose run.
        task_id: of the run.
        configuration_id: that it runs.
        reason: why, for the run's error.
        prevent: make the run, as cancelled, if the task has not begun it, so that it finds it so.
    """
    if prevent:
        configuration = session.get(TestConfiguration, (organization_id, configuration_id))
        created = session.scalar(
            insert(TestRun)
            .values(
                id=uuid.uuid4(),
                organization_id=organization_id,
                task_id=task_id,
                test_configuration_id=None if configuration is None else configuration_id,
                status=RunStatus.CANCELLED,
                error=reason,
                finished_at=func.clock_timestamp(),
            )
            .on_conflict_do_nothing(index_elements=["organization_id", "task_id"])
            .returning(TestRun.id)
        )
        if created is not None:
            return True
    run_id = session.scalar(
        select(TestRun.id).where(
            TestRun.organization_id == organization_id, TestRun.task_id == task_id
        )
    )
    return run_id is not None and cancel_run(session, organization_id, run_id, reason=reason)


def summarize_run(session: Session, organization_id: uuid.UUID, run_id: uuid.UUID) -> RunSummary:
    """Return where a run stands.

    Raises:
        UnknownRunError: the organization has none of this id.
    """
    run = _run(session, organization_id, run_id)
    missing = 0
    if run.status in _ACTIVE:
        missing = session.scalar(select(func.count()).select_from(_missing(run).subquery())) or 0
    return RunSummary(run.id, run.status, *_counts(session, run), missing, run.error)


def insert_results(
    session: Session,
    organization_id: uuid.UUID,
    run_id: uuid.UUID,
    test_ids: Sequence[uuid.UUID],
    outcome: Outcome,
) -> int:
    """Store the same outcome for tests that have none yet, and return for how many."""
    inserted = 0
    # One statement for each: a row inserted by somebody else meanwhile does not count.
    for test_id in test_ids:
        created = session.scalar(
            insert(TestResult)
            .values(
                id=uuid.uuid4(),
                organization_id=organization_id,
                test_run_id=run_id,
                test_id=test_id,
                verdict=outcome.verdict,
                received=outcome.received,
                error=outcome.error,
                duration_ms=outcome.duration_ms,
            )
            .on_conflict_do_nothing(index_elements=["organization_id", "test_run_id", "test_id"])
            .returning(TestResult.id)
        )
        inserted += created is not None
    return inserted


def _run(session: Session, organization_id: uuid.UUID, run_id: uuid.UUID) -> TestRun:
    run = session.get(TestRun, (organization_id, run_id), populate_existing=True)
    if run is None:
        raise UnknownRunError(f"there is no test run {run_id} in this organization")
    return run


def _locked(session: Session, organization_id: uuid.UUID, run_id: uuid.UUID) -> TestRun:
    run = session.get(
        TestRun, (organization_id, run_id), populate_existing=True, with_for_update=True
    )
    if run is None:
        raise UnknownRunError(f"there is no test run {run_id} in this organization")
    return run


def _end(run: TestRun, status: RunStatus, error: str | None = None) -> None:
    run.status = status
    run.error = error
    run.finished_at = func.clock_timestamp()


def _tests_of(run: TestRun) -> Select[Any]:
    return (
        select(TestSetTest.test_id)
        .join(TestConfiguration, TestConfiguration.test_set_id == TestSetTest.test_set_id)
        .where(
            TestSetTest.organization_id == run.organization_id,
            TestConfiguration.organization_id == run.organization_id,
            TestConfiguration.id == run.test_configuration_id,
        )
    )


def _missing(run: TestRun) -> Select[Any]:
    return _tests_of(run).where(
        ~exists().where(
            TestResult.organization_id == run.organization_id,
            TestResult.test_run_id == run.id,
            TestResult.test_id == TestSetTest.test_id,
        )
    )


def _counts(session: Session, run: TestRun) -> tuple[int, int, int]:
    rows = session.execute(
        select(TestResult.verdict, func.count().label("tests"))
        .where(TestResult.organization_id == run.organization_id, TestResult.test_run_id == run.id)
        .group_by(TestResult.verdict)
    )
    counts = {row.verdict: row.tests for row in rows}
    return counts.get(Verdict.PASS, 0), counts.get(Verdict.FAIL, 0), counts.get(Verdict.ERROR, 0)


def _status(passed: int, failed: int, errors: int) -> RunStatus:
    if not errors:
        return RunStatus.COMPLETED
    return RunStatus.PARTIAL if passed + failed else RunStatus.FAILED

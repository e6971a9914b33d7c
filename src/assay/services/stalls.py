"""Runs that make no progress: found, helped, given up."""

import uuid
from datetime import datetime, timedelta

from sqlalchemy import Engine, ScalarSelect, func, select, update
from sqlalchemy.orm import Session

from assay.config import RunPolicy
from assay.models import Endpoint, RunStatus, TestConfiguration, TestResult, TestRun, Verdict
from assay.services.runs import Outcome, insert_results, missing_tests
from tenantry import maintenance_session


def find_organizations(engine: Engine | None = None) -> list[uuid.UUID]:
    """Return the organizations with a run under way; work across tenants, recorded in the log.

    Raises:
        ConfigurationError: there is no login for it.
    """
    with maintenance_session(
        reason="sweep: whose runs are under way", actor="assay worker", engine=engine
    ) as session:
        query = select(TestRun.organization_id).where(TestRun.status == RunStatus.RUNNING)
        return list(session.scalars(query.distinct().order_by(TestRun.organization_id)))


def claim_stalled_runs(
    session: Session, organization_id: uuid.UUID, policy: RunPolicy
) -> list[uuid.UUID]:
    """Return the runs without progress, which count as helped just now.

    Progress is a new result, or help. A single test may take as long as its endpoint is given.
    """
    endpoint_time = func.make_interval(0, 0, 0, 0, 0, 0, Endpoint.timeout_seconds)
    stalled = (
        select(TestRun.id)
        .outerjoin(TestConfiguration, TestConfiguration.id == TestRun.test_configuration_id)
        .outerjoin(Endpoint, Endpoint.id == TestConfiguration.endpoint_id)
        .where(
            TestRun.organization_id == organization_id,
            TestRun.status == RunStatus.RUNNING,
            func.greatest(TestRun.updated_at, _last_result())
            + func.coalesce(endpoint_time, timedelta())
            + timedelta(seconds=policy.stalled_after)
            < func.clock_timestamp(),
        )
        .order_by(TestRun.id)
    )
    candidates = list(session.scalars(stalled))
    if not candidates:
        return []
    return list(
        session.scalars(
            update(TestRun)
            .where(
                TestRun.organization_id == organization_id,
                TestRun.id.in_(candidates),
                TestRun.status == RunStatus.RUNNING,
                TestRun.updated_at + timedelta(seconds=policy.stalled_after)
                < func.clock_timestamp(),
            )
            .values(updated_at=func.clock_timestamp())
            .returning(TestRun.id)
            .execution_options(synchronize_session=False)
        )
    )


def give_up_run(
    session: Session, organization_id: uuid.UUID, run_id: uuid.UUID, policy: RunPolicy
) -> int:
    """File the missing tests of a run as errors if nothing came of it for too long.

    Returns:
        How many were filed; `end_run` then ends the run, in a transaction of its own.
    """
    overdue = session.scalar(
        select(TestRun.id)
        .where(
            TestRun.organization_id == organization_id,
            TestRun.id == run_id,
            TestRun.status == RunStatus.RUNNING,
            func.greatest(TestRun.started_at, _last_result())
            + timedelta(seconds=policy.given_up_after)
            < func.clock_timestamp(),
        )
        .with_for_update(read=True)
    )
    if overdue is None:
        return 0
    missing = missing_tests(session, organization_id, run_id)
    error = f"given up: no test of the run got a result for {policy.given_up_after:g} s"
    return insert_results(
        session, organization_id, run_id, missing, Outcome(Verdict.ERROR, error=error)
    )


def _last_result() -> ScalarSelect[datetime]:
    return (
        select(func.max(TestResult.created_at))
        .where(
            TestResult.organization_id == TestRun.organization_id,
            TestResult.test_run_id == TestRun.id,
        )
        .correlate(TestRun)
        .scalar_subquery()
    )

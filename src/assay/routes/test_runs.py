"""`/test_runs`: what came of the token's organization's runs."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query

from assay.authentication import CurrentUser, TenantSession
from assay.models import TestRun
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.test_runs import (
    ResultPage,
    ResultQuery,
    RunDetail,
    RunOut,
    RunPage,
    SummaryOut,
)
from assay.services import results
from assay.services.pages import Page
from assay.services.runs import summarize_run

router = APIRouter(prefix="/test_runs", tags=["test runs"])


@router.get("", response_model=RunPage, responses=problems())
def list_runs(db: TenantSession, page: Annotated[PageQuery, Query()]) -> Page[TestRun]:
    """List the runs, oldest first, a page at a time."""
    return results.page_of_runs(db, size=page.size, after=page.after)


@router.get("/{run_id}", response_model=RunDetail, responses=problems(404))
def get_run(db: TenantSession, user: CurrentUser, run_id: uuid.UUID) -> RunDetail:
    """Show where a run stands, with its counts."""
    summary = summarize_run(db, user.organization_id, run_id)
    run = RunOut.model_validate(results.get_run(db, run_id))
    return RunDetail(**run.model_dump(), summary=SummaryOut.model_validate(summary))


@router.get("/{run_id}/results", response_model=ResultPage, responses=problems(404))
def list_results(
    db: TenantSession, run_id: uuid.UUID, page: Annotated[ResultQuery, Query()]
) -> Page[results.JudgedTest]:
    """List a run's results, oldest first, a page at a time."""
    return results.page_of_results(
        db, run_id, verdict=page.verdict, size=page.size, after=page.after
    )


@router.post("/{run_id}/cancel", response_model=RunOut, responses=problems(404, 409))
def cancel_run(db: TenantSession, user: CurrentUser, run_id: uuid.UUID) -> TestRun:
    """Cancel a run: the results that it has stay, tests under way are not filed any more."""
    return results.cancel_run(db, user.organization_id, run_id)

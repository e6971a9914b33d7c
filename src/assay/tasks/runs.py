"""Tasks that run a configuration: one that sends out its tests, one for each of them."""

import logging
import uuid
from typing import Any

from celery import Task

from assay.models import Verdict
from assay.services import runs, stalls
from assay.services.endpoints import storable
from assay.services.execution import execute
from assay.worker import app, settings
from tenantry import Tenant
from tenantry.celery import (
    BaseTask,
    current_tenant,
    get_db_session,
    publishing_for,
    tenant_free,
)

logger = logging.getLogger("assay.tasks")


@app.task(
    bind=True,
    base=BaseTask,
    name="assay.tasks.test_configuration.execute_test_configuration",
)
def execute_test_configuration(self: Task, configuration_id: str) -> dict[str, Any]:
    """Begin the run of this task and send out its tests; delivered again, only those missing."""
    organization_id = _organization_id()
    tenant = current_tenant()
    with get_db_session() as db:
        run_id = runs.begin_run(
            db,
            organization_id=organization_id,
            configuration_id=uuid.UUID(configuration_id),
            task_id=uuid.UUID(self.request.id),
            started_by_id=None if tenant is None else _uuid(tenant.user_id),
        )
    return {"run_id": str(run_id), "sent": _send_missing(organization_id, run_id)}


class _SingleTest(BaseTask):
    """Files an error for its test when it fails for good, or takes too long once."""

    abstract = True

    def on_failure(
        self, exc: Exception, task_id: str, args: Any, kwargs: dict[str, Any], einfo: Any
    ) -> None:
        super().on_failure(exc, task_id, args, kwargs, einfo)
        if current_tenant() is None or len(args) != 2:
            return
        _file(
            uuid.UUID(args[0]),
            uuid.UUID(args[1]),
            runs.Outcome(Verdict.ERROR, error=storable(f"{type(exc).__name__}: {exc}")),
        )


# Its record is the result's row: what the run lacks is sent again without another.
@app.task(
    base=_SingleTest,
    name="assay.tasks.test.execute_single_test",
    ignore_result=True,
    record=False,
)
def execute_single_test(run_id: str, test_id: str) -> None:
    """Execute one test of a run, file what came of it, and end the run if it was the last."""
    organization_id, run, test = _organization_id(), uuid.UUID(run_id), uuid.UUID(test_id)
    with get_db_session() as db:
        if runs.database_tenant(db) != str(organization_id):
            logger.warning(
                "the database does not know the organization of run %s: its filters alone keep "
                "tenants apart",
                run_id,
            )
        work = runs.work_of(db, organization_id, run, test)
    if work is not None:
        _file(run, test, execute(work, settings.endpoints))
        return
    with get_db_session() as db:
        runs.end_run(db, organization_id, run)


@app.task(base=BaseTask, name="assay.tasks.run.resume_stalled_runs", record=False)
def resume_stalled_runs() -> dict[str, Any]:
    """Send the missing tests of the tenant's stalled runs out again, or give them up."""
    organization_id = _organization_id()
    sent = given_up = 0
    with get_db_session() as db:
        stalled = stalls.claim_stalled_runs(db, organization_id, settings.runs)
    for run_id in stalled:
        with get_db_session() as db:
            given_up += stalls.give_up_run(db, organization_id, run_id, settings.runs)
        with get_db_session() as db:
            runs.end_run(db, organization_id, run_id)
        sent += _send_missing(organization_id, run_id)
    return {"stalled": len(stalled), "sent": sent, "given_up": given_up}


@app.task(base=BaseTask, name="assay.tasks.run.sweep_runs", ignore_result=True, record=False)
@tenant_free
def sweep_runs() -> None:
    """Send `resume_stalled_runs` out for each organization with a run under way."""
    for organization_id in stalls.find_organizations():
        with publishing_for(Tenant.parse(organization_id)):
            resume_stalled_runs.apply_async(expires=settings.runs.swept_every)


def _file(run_id: uuid.UUID, test_id: uuid.UUID, outcome: runs.Outcome) -> None:
    organization_id = _organization_id()
    with get_db_session() as db:
        runs.file_outcome(db, organization_id, run_id, test_id, outcome)
    with get_db_session() as db:
        runs.end_run(db, organization_id, run_id)


def _send_missing(organization_id: uuid.UUID, run_id: uuid.UUID) -> int:
    with get_db_session() as db:
        missing = runs.missing_tests(db, organization_id, run_id)
    with app.producer_pool.acquire(block=True) as producer:
        for test_id in missing:
            execute_single_test.apply_async((str(run_id), str(test_id)), producer=producer)
    return len(missing)


def _organization_id() -> uuid.UUID:
    tenant = current_tenant()
    if tenant is None:
        raise LookupError("the task runs for no tenant")
    return uuid.UUID(str(tenant.organization_id))


def _uuid(value: object) -> uuid.UUID | None:
    return None if value is None else uuid.UUID(str(value))

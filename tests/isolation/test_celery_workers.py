"""What a worker's main process and its beat publish by themselves: in the right tenant, or not."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from tests.fixtures.recorded_site import ALICE, Site, new_site
from tests.fixtures.task_board import new_label, wait_until
from tests.fixtures.worlds import A, B, cursor_of

from assay.models import TaskRecord
from tenantry import Tenant, tenant_scope
from tenantry.celery import TaskState, publishing_for
from tenantry.testing import Server


@pytest.fixture(scope="module")
def site(tenantry_server: Server, tenantry_template: str) -> Iterator[Site]:
    """Return a site without a worker."""
    with new_site(tenantry_server, tenantry_template) as made:
        yield made


def all_traces(site: Site, label: str) -> set[str]:
    """Return whose rows hold the label, as the superuser sees them."""
    with cursor_of(site.database.superuser_url) as cursor:
        cursor.execute(
            "select organization_id::text from test_sets where starts_with(name, %s)", [label]
        )
        return {row[0] for row in cursor.fetchall()}


def test_beat_fans_out_to_each_organization(site: Site, tmp_path: Path) -> None:
    """A real beat and worker: each organization's task runs for it, and for no user.

    What beat publishes without a fan-out has no tenant and is not executed for any.
    """
    fanned, alone = new_label(), new_label()
    schedule = {
        "fan-out": {
            "task": "fan_out",
            "schedule": 0.5,
            "args": ["mark", [str(A), str(B)], fanned],
        },
        "alone": {"task": "mark", "schedule": 0.5, "args": [alone]},
    }
    with site.worker_process(
        tmp_path,
        arguments=("--beat", "--schedule", str(tmp_path / "schedule")),
        beat_schedule=schedule,
    ) as worker:
        wait_until(
            lambda: min(site.count(fanned, A), site.count(fanned, B)) >= 2, 40, worker.log.read_text
        )
        wait_until(
            lambda: "task 'mark' has no tenant" in worker.log.read_text(), 90, worker.log.read_text
        )
    assert all_traces(site, fanned) == {str(A), str(B)}
    assert all_traces(site, alone) == set()
    for organization in (A, B):
        with tenant_scope(organization, sessions=site.sessions) as session:
            records = session.scalars(select(TaskRecord).where(TaskRecord.name == "mark")).all()
            assert {record.payload["args"][0] for record in records} == {fanned}
            assert {record.user_id for record in records} == {None}


def test_errback_of_a_lost_process_runs_for_its_tenant(site: Site, tmp_path: Path) -> None:
    """A task's process dies: the main process publishes the errbacks, for the task's own tenant."""
    labels = {organization: new_label() for organization in (A, B)}
    with site.worker_process(tmp_path, worker_lost_wait=0.5):
        lost = []
        for organization, label in labels.items():
            with publishing_for(Tenant(organization, ALICE.id)):
                lost.append(
                    (
                        site.app.tasks["vanish"].apply_async(
                            link_error=site.app.tasks["note_error"].s(label)
                        ),
                        organization,
                    )
                )
        for result, organization in lost:
            record = site.wait(result, TaskState.FAILURE, organization_id=organization)
            assert record.error is not None
            assert record.error.startswith("WorkerLostError")
        for organization, label in labels.items():
            wait_until(
                lambda label=label, organization=organization: site.count(label, organization) == 1,  # type: ignore[misc]
                90,
                lambda: "no errback",
            )
        # Time for one that should not come.
        time.sleep(0.3)
    for organization, label in labels.items():
        assert all_traces(site, label) == {str(organization)}

"""What a running worker is asked about one organization's tasks, where its broker can reach it.

Celery's own commands know a task by its id alone, and two organizations may use the same one: what
is asked for one of them must not end, nor tell of, a task of the other.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from celery.worker import state as worker_state
from celery.worker.control import control_command, inspect_command
from celery.worker.request import Request

from tenantry.celery.carrier import HEADER

FIND: Final = "tenantry_find"
TERMINATE: Final = "tenantry_terminate"


@inspect_command(name=FIND)
def find(_state: Any, task_ids: Sequence[str], organization_id: str) -> dict[str, str]:
    """Return which of an organization's tasks this worker has, and whether they run."""
    active = set(worker_state.active_requests)
    return {
        request.id: "running" if request in active else "waiting"
        for request in _requests(task_ids, organization_id)
    }


@control_command(name=TERMINATE)
def terminate(state: Any, task_ids: Sequence[str], organization_id: str) -> dict[str, list[str]]:
    """End those of an organization's tasks that this worker has."""
    ended = []
    for request in _requests(task_ids, organization_id):
        request.terminate(state.consumer.pool)
        ended.append(request.id)
    return {"ok": ended}


def _requests(task_ids: Sequence[str], organization_id: str) -> Iterator[Request]:
    wanted = set(task_ids)
    known = worker_state.active_requests | worker_state.reserved_requests
    for request in known | worker_state.scheduled_requests:
        header = request.request_dict.get(HEADER)
        if (
            request.id in wanted
            and isinstance(header, dict)
            and header.get("organization_id") == organization_id
        ):
            yield request

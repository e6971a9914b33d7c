"""Periodic work: one task for each organization, sealed for it."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from celery import Task
from celery.result import AsyncResult
from sqlalchemy.exc import IntegrityError

from tenantry.celery.launcher import task_launcher
from tenantry.context import TenantId
from tenantry.exceptions import TenancyError

logger = logging.getLogger("tenantry.celery")

Organizations = Iterable[TenantId] | Callable[[], Iterable[TenantId]]


@dataclass(frozen=True, slots=True)
class _Organization:
    organization_id: TenantId
    id: None = None


def for_each_tenant(
    task: Task, organizations: Organizations, *args: Any, **kwargs: Any
) -> list[AsyncResult]:
    """Launch the task once for each organization, and for no user.

    Meant for a `@tenant_free` task that beat runs. An organization for which it cannot be launched,
    such as one that was deleted meanwhile, is logged and keeps no other from its task.

    Args:
        task: of an application with `install_tenancy`.
        organizations: their ids, or what returns them when called.
        args: the task's own.
        kwargs: the task's own; `countdown` as for `task_launcher`.
    """
    launched = []
    for organization_id in organizations() if callable(organizations) else organizations:
        try:
            principal = _Organization(organization_id)
            launched.append(task_launcher(task, *args, current_user=principal, **kwargs))
        except (TenancyError, IntegrityError):
            logger.exception("task %s was not launched for %s", task.name, organization_id)
    return launched

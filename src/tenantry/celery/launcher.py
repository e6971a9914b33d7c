"""Launches tasks for an authenticated principal, in the caller's transaction."""

import logging
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from celery import Celery, Task
from celery.result import AsyncResult
from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session, scoped_session

from tenantry.celery.installation import tenancy_of
from tenantry.celery.ledger import Attempt, Ledger, Publication
from tenantry.celery.outbox import after_commit
from tenantry.celery.recording import ledger_of
from tenantry.celery.scope import publishing_for, recorded_task
from tenantry.context import Principal, Tenant
from tenantry.exceptions import CrossTenantError
from tenantry.sessions import get_tenant, set_tenant, tenant_scope

logger = logging.getLogger("tenantry.celery")

# A pooled connection may have gone stale, hence a second try; after that it is the sweeper's.
_POLICY: Final = {"max_retries": 1, "interval_start": 0, "interval_max": 0}


def task_launcher(
    task: Task,
    *args: Any,
    current_user: Principal,
    db: Session | scoped_session[Any] | None = None,
    countdown: float | None = None,
    task_id: uuid.UUID | None = None,
    **kwargs: Any,
) -> AsyncResult:
    """Launch a task for the principal's organization and user, whatever the arguments say.

    With `db` the task's record belongs to its transaction: the task is handed to the broker after
    the commit, and a rollback leaves nothing of it. Without, it has a transaction of its own. If
    the broker cannot be reached, the record stays QUEUED for the sweeper, which is logged and is no
    error here. A task id that was launched before is not launched again.

    Args:
        task: of an application with `install_tenancy`.
        args: the task's own.
        current_user: for whom; the only source of the tenant.
        db: a Session of the same organization, or of none yet, which is bound then.
        countdown: seconds before which the task does not start.
        task_id: by default a new one.
        kwargs: the task's own, `organization_id` and `user_id` included.

    Raises:
        InvalidTenantError: the principal's ids are none.
        CrossTenantError: `db` is bound to another organization.
        TypeError: the task does not take these arguments, or they cannot be written as JSON.
        UnknownTenantError: the organization does not exist.
    """
    tenancy = tenancy_of(task.app)
    tenant = Tenant.parse(
        current_user.organization_id, current_user.id, config=tenancy.carrier.config
    )
    if task.typing:
        task.__header__(*args, **kwargs)
    attempt = Attempt(
        tenant=tenant,
        task_id=str(task_id or uuid.uuid4()),
        name=task.name,
        args=args,
        kwargs=kwargs,
    )
    eta = None if countdown is None else datetime.now(UTC) + timedelta(seconds=countdown)
    session = db() if isinstance(db, scoped_session) else db
    if session is not None:
        _bind(session, tenant)
    ledger = ledger_of(task)
    if ledger is None:
        result = _launch_unrecorded(task.app, attempt, session, eta)
    else:
        result = _launch(task.app, ledger, attempt, session, eta)
    return task.AsyncResult(attempt.task_id) if result is None else result


def dispatch(app: Celery, ledger: Ledger, tenant: Tenant, task_id: uuid.UUID) -> AsyncResult | None:
    """Hand a QUEUED task to the broker, for its tenant; in eager mode, execute it.

    Returns:
        The task's result; None if there was nothing to dispatch, or the broker cannot be reached,
        which is logged.
    """
    if app.conf.task_always_eager:
        publication = ledger.release(tenant, task_id)
        return None if publication is None else publish(app, tenant, publication)
    try:
        return ledger.dispatch(tenant, task_id, lambda p: _publish_recorded(app, tenant, p))
    except OperationalError as error:
        logger.warning(
            "task %s of %s stays queued, the broker cannot be reached: %s",
            task_id,
            tenant,
            str(error).partition("\n")[0],
        )
    except Exception:
        # The caller's transaction is committed: an error here must not look like its failure.
        logger.exception("task %s of %s stays queued", task_id, tenant)
    return None


def publish(app: Celery, tenant: Tenant, publication: Publication) -> AsyncResult:
    """Publish a task for a tenant.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
    """
    options = publication.options | {
        "task_id": publication.task_id,
        "retry_policy": _POLICY,
        "add_to_parent": False,
    }
    task = app.tasks.get(publication.name)
    with publishing_for(tenant):
        if task is None:
            return app.send_task(publication.name, publication.args, publication.kwargs, **options)
        return task.apply_async(publication.args, publication.kwargs, **options)


def _publish_recorded(app: Celery, tenant: Tenant, publication: Publication) -> AsyncResult:
    token = recorded_task.set(publication.task_id)
    try:
        return publish(app, tenant, publication)
    finally:
        recorded_task.reset(token)


def _bind(session: Session, tenant: Tenant) -> None:
    bound = get_tenant(session)
    if bound is None:
        set_tenant(session, tenant.organization_id, tenant.user_id)
    elif bound.organization_id != tenant.organization_id:
        raise CrossTenantError(
            f"a task of organization {tenant.organization_id} was to be launched in a Session of "
            f"{bound}: pass the principal whose Session it is, or no Session"
        )


def _launch(
    app: Celery, ledger: Ledger, attempt: Attempt, session: Session | None, eta: datetime | None
) -> AsyncResult | None:
    tenant = attempt.tenant
    if session is not None:
        if ledger.file(session, attempt, eta=eta):
            after_commit(session, lambda: dispatch(app, ledger, tenant, attempt.id))
        return None
    own = tenant_scope(tenant.organization_id, tenant.user_id, sessions=ledger.sessions)
    with own as opened:
        added = ledger.file(opened, attempt, eta=eta)
    return dispatch(app, ledger, tenant, attempt.id) if added else None


def _launch_unrecorded(
    app: Celery, attempt: Attempt, session: Session | None, eta: datetime | None
) -> AsyncResult | None:
    """Publish a task that leaves no record; an error of the broker is the caller's."""
    publication = Publication(
        task_id=attempt.task_id,
        name=attempt.name,
        args=attempt.args,
        kwargs=attempt.kwargs,
        options={} if eta is None else {"eta": eta},
    )
    if session is None:
        return publish(app, attempt.tenant, publication)
    after_commit(session, lambda: publish(app, attempt.tenant, publication))
    return None

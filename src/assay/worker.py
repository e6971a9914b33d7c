"""The Celery application: what publishes Assay's tasks, and what `celery -A assay.worker` runs.

A module with tasks imports `app` from here, so that nobody can publish one with an application
that is not configured.
"""

import logging
from datetime import timedelta
from typing import Any, Final

from celery import Celery

import tenantry
from assay.config import Settings
from assay.database import SessionLocal
from assay.models import TaskRecord
from assay.observation import observe
from assay.watchdog import watch_pool
from tenantry.celery import (
    Deadlines,
    add_sweeper,
    bound_chords,
    broker_url,
    install_tenancy,
    result_backend_url,
    task_key,
)

# Seconds. Without an end a Redis that accepts and never answers would keep every request that
# launches a task or reads its result, and with them all turns at the pool.
_ANSWER_DUE: Final = 5.0

app = Celery("assay", set_as_current=True)


def _configuration(settings: Settings) -> dict[str, Any]:
    broker = broker_url(_databases)
    return {
        "broker_url": broker,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": _transport_options(broker, settings),
        "result_backend": result_backend_url(_databases),
        "redis_socket_timeout": _ANSWER_DUE,
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "enable_utc": True,
        "timezone": "UTC",
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "task_time_limit": settings.task_time_limit,
        # In between the task can still file what became of it.
        "task_soft_time_limit": max(settings.task_time_limit - 30, settings.task_time_limit / 2),
        "worker_concurrency": 8,
        "worker_prefetch_multiplier": 4,
        "worker_max_tasks_per_child": 1000,
        # A child that is ended while it holds the lock of the pool's queue stops the whole pool; a
        # test that is executed twice has one result all the same.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # What looks across organizations has a queue of its own: workers without it need no login
        # for that.
        "task_routes": {
            "assay.tasks.run.sweep_runs": {"queue": "maintenance"},
            "tenantry.sweep": {"queue": "maintenance"},
        },
        "beat_schedule": {
            "sweep-runs": {
                "task": "assay.tasks.run.sweep_runs",
                "schedule": settings.runs.swept_every,
                "options": {"expires": settings.runs.swept_every},
            },
        },
    }


def _transport_options(broker: str, settings: Settings) -> dict[str, Any]:
    if broker.startswith(("redis", "sentinel")):
        return {
            # Sooner than this Redis would hand a task out a second time while it is still running.
            "visibility_timeout": 2 * settings.task_time_limit,
            "socket_timeout": _ANSWER_DUE,
        }
    return {}


# At INFO it writes a line for each request, with the URL.
logging.getLogger("httpx").setLevel(logging.WARNING)

_databases = tenantry.Settings.from_environment()
settings = Settings.from_environment()
app.conf.update(_configuration(settings))
install_tenancy(
    app,
    key=task_key(_databases),
    sessions=SessionLocal,
    records=TaskRecord,
    deadlines=Deadlines(delivered=timedelta(seconds=settings.task_delivered_within)),
)
bound_chords(app)
observe(app)
add_sweeper(app, every=settings.runs.swept_every)
watch_pool(settings.pool_patience)
app.autodiscover_tasks(["assay"], force=True)

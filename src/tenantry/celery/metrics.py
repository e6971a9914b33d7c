"""Prometheus metrics of a worker: how long its tasks run, and how they end.

Labels are a task's name and its outcome, both of fixed sets; tenants are in the logs and records.
With the prefork pool the tasks run in children, whose numbers the worker adds up when it is asked:
for that prometheus_client wants PROMETHEUS_MULTIPROC_DIR in the environment, a folder of this
worker's own, before it is imported.
"""

import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, cast

from celery import Celery, Task, signals
from celery.concurrency.prefork import TaskPool
from celery.worker import WorkController
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from tenantry.exceptions import ConfigurationError, RefusedMessageError

_FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"
_BEGAN: Final = "tenantry_began"
_READINGS: Final = 10
_OUTCOMES: Final = {"SUCCESS": "success", "RETRY": "retry", "FAILURE": "failure"}

TASKS: Final = Counter(
    "tenantry_tasks",
    "Executions of tasks, by how they ended: success, failure, retry, revoked, refused",
    ["task", "outcome"],
)
RUNTIME: Final = Histogram(
    "tenantry_task_runtime_seconds",
    "How long executions of tasks took",
    ["task"],
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1800),
)


def install_metrics(app: Celery, *, port: int | None = None, address: str = "127.0.0.1") -> None:
    """Count the application's tasks in each worker, and answer Prometheus on request.

    Args:
        app: the application.
        port: where the worker's main process answers `GET /metrics`; None does not expose them.
        address: that it listens on. The metrics tell of no tenant, but they are not protected.

    Raises:
        ConfigurationError: from the worker as it starts, when its pool is prefork, a port is given,
            and PROMETHEUS_MULTIPROC_DIR names no folder.
    """
    endpoint = _Endpoint(app, port, address)
    signals.task_prerun.connect(_on_begin, weak=False)
    signals.task_postrun.connect(_on_end, weak=False)
    signals.task_failure.connect(_on_failure, weak=False)
    signals.task_revoked.connect(_on_revoked, weak=False)
    signals.worker_init.connect(endpoint.prepare, weak=False)
    signals.worker_ready.connect(endpoint.open, weak=False)
    signals.worker_process_init.connect(endpoint.forget, weak=False)
    signals.worker_shutdown.connect(endpoint.close, weak=False)


def _on_begin(task: Task, **_: Any) -> None:
    setattr(task.request, _BEGAN, time.monotonic())


def _on_end(task: Task, state: str | None, retval: object, **_: Any) -> None:
    began = getattr(task.request, _BEGAN, None)
    outcome = _OUTCOMES.get(str(state))
    if outcome is None or not isinstance(began, float):
        return
    if isinstance(retval, RefusedMessageError):
        outcome = "refused"
    else:
        RUNTIME.labels(task.name).observe(time.monotonic() - began)
    TASKS.labels(task.name, outcome).inc()


def _on_failure(sender: Task, **_: Any) -> None:
    # In the worker's main process, of a task whose process was killed: nobody else tells.
    if not isinstance(getattr(sender.request, _BEGAN, None), float):
        TASKS.labels(sender.name, "failure").inc()


def _on_revoked(sender: Task, **_: Any) -> None:
    TASKS.labels(sender.name, "revoked").inc()


class ChildrenCollector(MultiProcessCollector):
    """Adds up the children's numbers, also while a child is making its file."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Answer for this registry."""
        super().__init__(registry)

    def collect(self) -> Iterable[Metric]:
        """Return the sums; a file that is still empty is read again a moment later."""
        for _ in range(_READINGS - 1):
            try:
                metrics: Iterable[Metric] = super().collect()
            except struct.error:
                time.sleep(0.02)
            else:
                return metrics
        return cast("Iterable[Metric]", super().collect())


class _Endpoint:
    """Answers Prometheus in the main process of one application's worker."""

    def __init__(self, app: Celery, port: int | None, address: str) -> None:
        self._app = app
        self._port = port
        self._address = address
        self._server: Any = None

    def prepare(self, sender: WorkController, **_: Any) -> None:
        """Begin with an empty folder, so that a worker before this one is not counted again."""
        if sender.app is not self._app or self._port is None:
            return
        folder = os.environ.get(_FOLDER, "")
        if folder:
            for file in Path(folder).glob("*.db"):
                file.unlink()
        elif issubclass(sender.pool_cls, TaskPool):
            # Celery logs what a receiver raises and goes on; a worker nobody can watch must not.
            raise SystemExit(
                str(
                    ConfigurationError(
                        f"{_FOLDER} is not set, and the tasks of a prefork worker run in other "
                        "processes: set it to an empty folder, or use --pool=threads"
                    )
                )
            )

    def open(self, sender: Any, **_: Any) -> None:
        """Listen, once the worker can work."""
        if sender.app is not self._app or self._port is None or self._server is not None:
            return
        registry = REGISTRY
        if os.environ.get(_FOLDER):
            registry = CollectorRegistry()
            ChildrenCollector(registry)
        self._server, _thread = start_http_server(self._port, self._address, registry)

    def forget(self, **_: Any) -> None:
        """Leave the port to the parent, in a child that was forked after it was opened."""
        if self._server is not None:
            self._server.socket.close()

    def close(self, **_: Any) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

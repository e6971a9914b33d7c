"""Ends a worker whose pool takes no tasks any more, so that a supervisor starts another."""

import logging
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

import billiard
from celery import signals
from celery.worker import state

logger = logging.getLogger("assay.worker")


def watch_pool(patience: float) -> None:
    """Watch the pool of the worker that this process becomes, if it becomes one.

    Patience is in seconds. A pool that is busy, or has nothing to do, is left alone.

    Where the broker has no event loop, as PostgreSQL, the processes of a prefork pool share one
    queue and its lock. One that is killed, by the kernel for want of memory say, while it holds the
    lock leaves it locked: all the others wait for ever, and Celery does not notice. What was
    received is executed by the next worker, when its run is swept.
    """

    def start(sender: Any, **_: Any) -> None:
        watcher = threading.Thread(
            target=_watch, args=(sender.pool, patience), name="watchdog", daemon=True
        )
        watcher.start()

    signals.worker_ready.connect(start, weak=False)


def _watch(pool: Any, patience: float) -> None:
    since, active_before, waiting = time.monotonic(), frozenset[str](), frozenset[str]()
    while True:
        time.sleep(min(1.0, patience / 4))
        active, received = _requests()
        has_room = len(active) < pool.num_processes
        # What is received in addition is no progress: a queue that fills up slowly looks like that.
        moved = active != active_before or not waiting or not waiting <= received
        if moved or not has_room:
            since, active_before, waiting = time.monotonic(), active, received
        elif time.monotonic() - since > patience:
            logger.critical(
                "the pool has taken no task for %.0f s though %d are waiting: this worker ends",
                patience,
                len(received),
            )
            _end()


def _requests() -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids of what is executed, and of what is received and not."""
    # Celery's sets are weak: the main thread may change one while another thread walks over it,
    # which would be the end of this one. A dictionary is copied in one step.
    known = state.requests.copy()
    active = frozenset(key for key, each in known.items() if each in state.active_requests)
    received = frozenset(key for key, each in known.items() if each in state.reserved_requests)
    return active, received - active


def _end() -> None:
    # The pool's, and the beat if it is embedded: orphans would go on as if nothing had happened.
    for child in billiard.active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    # The main thread may be the one that waits: nothing orderly is left to do.
    os._exit(1)

"""Leases of running tasks, renewed by a thread of the process that runs them.

A lease outlives a task that is stuck, not a process that is gone: who finds it expired knows that
nobody is at work any more.
"""

import logging
import os
import threading
import time
from dataclasses import dataclass
from typing import Final

from sqlalchemy.exc import SQLAlchemyError

from tenantry.celery.ledger import Attempt, Ledger
from tenantry.exceptions import TenancyError

logger = logging.getLogger("tenantry.celery")

_SHARE: Final = 3


@dataclass(slots=True)
class _Lease:
    ledger: Ledger
    attempt: Attempt
    renewed: float

    @property
    def due(self) -> float:
        return self.renewed + self.ledger.deadlines.lease.total_seconds() / _SHARE


class _Keeper:
    """Renews the leases of one process; a forked child begins with none."""

    def __init__(self) -> None:
        self._reset()
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._leases: dict[Attempt, _Lease] = {}
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._pause = 0.0

    def hold(self, ledger: Ledger, attempt: Attempt) -> None:
        with self._lock:
            self._leases[attempt] = _Lease(ledger, attempt, time.monotonic())
            pause, share = self._pause, ledger.deadlines.lease.total_seconds() / _SHARE
            self._pause = min(pause or share, share)
        if not pause:
            threading.Thread(target=self._renew, name="tenantry-leases", daemon=True).start()
        elif share < pause:
            self._hurry.set()

    def drop(self, attempt: Attempt) -> None:
        with self._lock:
            self._leases.pop(attempt, None)

    def _renew(self) -> None:
        # Most tasks end long before their lease: holding one must cost no switch of threads.
        while True:
            if self._hurry.wait(self._pause):
                self._hurry.clear()
            now = time.monotonic()
            with self._lock:
                due = [lease for lease in self._leases.values() if lease.due <= now]
            for lease in due:
                lease.renewed = now
                self._renew_one(lease)

    def _renew_one(self, lease: _Lease) -> None:
        attempt = lease.attempt
        try:
            lease.ledger.renew(attempt)
        except (SQLAlchemyError, TenancyError) as error:
            logger.warning(
                "the lease of task %s[%s] was not renewed: %s", attempt.name, attempt.task_id, error
            )


_keeper: Final = _Keeper()


def hold(ledger: Ledger, attempt: Attempt) -> None:
    """Renew the lease of a running task from now on."""
    _keeper.hold(ledger, attempt)


def drop(attempt: Attempt) -> None:
    """Renew it no longer; harmless if it is not held."""
    _keeper.drop(attempt)

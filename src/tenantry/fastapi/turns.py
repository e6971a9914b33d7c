"""Turns: a request waits for its connection where it takes up no thread, so that all get theirs."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Self
from weakref import WeakKeyDictionary

import anyio
from anyio.lowlevel import RunVar
from fastapi import FastAPI
from sqlalchemy import Engine, QueuePool
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from tenantry.fastapi.installation import engine_of, sessions_of

_by_application: Final[RunVar[WeakKeyDictionary[FastAPI, "Turns"]]] = RunVar("tenantry_turns")


@dataclass(frozen=True, slots=True)
class Turns:
    """Lets no more requests into a Session than the pool has connections, but for one.

    FastAPI runs sync code in a few threads, and a request goes back to it for a thread several
    times while it holds its connection. If others filled the threads meanwhile, waiting for
    connections, both sides would wait until the pool's timeout. The one that is left over serves
    whoever takes a connection and returns it without leaving the thread, as authentication does.

    Attributes:
        semaphore: None where the pool has no limit.
        patience: seconds, as the pool has it.
    """

    semaphore: anyio.Semaphore | None
    patience: float

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Return the turns of an engine's pool."""
        pool = engine.pool
        if not isinstance(pool, QueuePool) or pool._max_overflow < 0 or pool.size() == 0:
            return cls(None, 0)
        connections = pool.size() + pool._max_overflow
        return cls(anyio.Semaphore(max(1, connections - 1)), pool.timeout())

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """Wait for a turn, and end it.

        Raises:
            sqlalchemy.exc.TimeoutError: there was none in the time that the pool gives.
        """
        if self.semaphore is None:
            yield
            return
        with anyio.move_on_after(self.patience) as waiting:
            await self.semaphore.acquire()
        if waiting.cancelled_caught:
            raise PoolTimeoutError(
                f"no connection became free within {self.patience:g} s: the pool is too small for "
                "the requests that come at once, or they take too long"
            )
        try:
            yield
        finally:
            self.semaphore.release()


def turns_of(app: FastAPI) -> Turns:
    """Return the application's turns, of which each event loop has its own.

    Raises:
        ConfigurationError: it has no tenant layer.
    """
    known = _by_application.get(None)
    if known is None:
        known = WeakKeyDictionary()
        _by_application.set(known)
    turns = known.get(app)
    if turns is None:
        turns = known[app] = Turns.of(engine_of(sessions_of(app)))
    return turns

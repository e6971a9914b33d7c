"""Waiting for the server in a way that Ctrl-C ends."""

import select

from psycopg2 import OperationalError
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, connection


def wait(waiting: connection) -> None:
    """Wait for the server's answer; an interrupt closes the connection, so nothing is committed.

    psycopg2 calls this in place of libpq's own waiting, which returns to Python only with the
    answer: one that is held up by a lock could not be interrupted.

    Source: psycopg 2 documentation, "Support for coroutine libraries".
    """
    while (state := waiting.poll()) != POLL_OK:
        if state == POLL_READ:
            select.select([waiting.fileno()], [], [])
        elif state == POLL_WRITE:
            select.select([], [waiting.fileno()], [])
        else:
            raise OperationalError(f"the connection is in the unexpected state {state}")

"""Chords that end: Celery polls a chord for ever unless it is told when to stop."""

from datetime import timedelta
from typing import Any, Final

from celery import Celery

_UNLOCK: Final = "celery.chord_unlock"


def bound_chords(
    app: Celery,
    *,
    max_retries: int = 600,
    interval: float = 1.0,
    join_timeout: float = 30.0,
    result_expires: timedelta = timedelta(days=1),
) -> None:
    """End a chord whose members do not all finish, and every result after a time.

    Its body then fails with ChordError: its code is not called. A backend without native chords
    (the database) polls `max_retries` times, `interval` seconds apart; with a native one (Redis) no
    poll exists, and the members' own time limits are the bound.

    Celery reads none of the settings named `chord_unlock_max_retries`; what counts is the attribute
    of its task, which exists once the application is finalized (celery/app/builtins.py).

    Args:
        app: the application.
        max_retries: polls of one chord.
        interval: seconds between two of them.
        join_timeout: seconds for collecting the members' results.
        result_expires: after which results are removed.
    """
    app.conf.result_chord_retry_interval = interval
    app.conf.result_chord_join_timeout = join_timeout
    app.conf.result_expires = result_expires

    def bound(sender: Celery, **_: Any) -> None:
        sender.tasks[_UNLOCK].max_retries = max_retries

    if app.finalized:
        bound(app)
        app.tasks[_UNLOCK].default_retry_delay = interval
    else:
        app.on_after_finalize.connect(bound, weak=False)

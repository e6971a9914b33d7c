"""A beat that outlives its connection to the broker."""

from typing import Any

from celery.beat import PersistentScheduler, SchedulingError


class RecoveringScheduler(PersistentScheduler):
    """Publishes over a new connection after a publication has failed.

    Celery's own keeps the one it began with: with PostgreSQL as the broker, whose channel is
    closed by the first error, it would publish nothing more after a restart of the database.
    """

    def apply_async(self, *args: Any, **kwargs: Any) -> Any:
        """Publish an entry's task; on failure leave a new connection for the next one.

        Raises:
            SchedulingError: it was not published.
        """
        try:
            return super().apply_async(*args, **kwargs)
        except SchedulingError:
            lost = self.__dict__.pop("connection", None)
            self.__dict__.pop("producer", None)
            if lost is not None:
                lost.release()
            raise

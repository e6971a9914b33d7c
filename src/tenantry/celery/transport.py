"""PostgreSQL as Celery's broker, polled more often, and not brought down by what others put in."""

import logging
from queue import Empty
from typing import Any

from kombu.transport import sqlalchemy

logger = logging.getLogger("assay.worker")


class Channel(sqlalchemy.Channel):
    """Puts aside what is no message of Celery's; kombu's own lets it end the worker."""

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002
        try:
            message = super()._get(queue)
            self.Message(message, channel=self)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            logger.error("queue %s held something that is no message: %r", queue, error)  # noqa: TRY400 - the trace says nothing
            raise Empty from error
        return message


class Transport(sqlalchemy.Transport):
    """kombu's transport over SQLAlchemy, with these channels."""

    Channel = Channel
    # As an option of the transport it would be passed on to create_engine().
    polling_interval = 0.1

"""Redis as Celery's broker, not brought down by what others put in."""

import logging
from json import JSONDecodeError
from typing import Any, Final

from kombu.transport import redis, virtual

logger = logging.getLogger("tenantry.celery")


class _UnreadableError(Exception):
    """What was taken from the queue is not built as a message."""


class Message(virtual.Message):
    """A message whose parts are there, or an error that says that it is none."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        """Take the parts from what was in the queue."""
        try:
            super().__init__(payload, channel=channel, **options)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _UnreadableError(repr(error)) from error


_NO_MESSAGE: Final = (_UnreadableError, JSONDecodeError, UnicodeDecodeError, RecursionError)


class _Reading:
    """Puts aside what is no message of Celery's; kombu's own channels let it end the worker."""

    Message = Message

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except _NO_MESSAGE as error:
            logger.error("a queue held something that is no message: %s", error)  # noqa: TRY400 - the trace says nothing
            return True


class Channel(_Reading, redis.Channel):
    """kombu's channel, which goes on with the next message."""


class SentinelChannel(_Reading, redis.SentinelChannel):
    """The same by way of Sentinels."""


class Transport(redis.Transport):
    """kombu's transport over Redis with these channels."""

    Channel = Channel


class SentinelTransport(redis.SentinelTransport):
    """The same by way of Sentinels."""

    Channel = SentinelChannel

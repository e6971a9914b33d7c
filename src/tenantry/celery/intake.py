"""What a worker takes from its queue: messages of tasks, and nothing that could stop it."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from celery.exceptions import InvalidTaskError
from celery.worker.consumer import Consumer
from kombu.message import Message

from tenantry.celery import remote

# Imported here, `remote` gives its commands to workers, and to nothing else.
__all__ = ["Intake", "check_readable", "remote"]

# What Celery raises where a message is not built as it expects; it would end the worker, which
# gives the message back to the queue for the next worker to end by.
_UNEXPECTED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

OnMessage = Callable[[Message], None]


class Intake(Consumer):
    """A consumer that drops what is no task's message, logs it, and goes on with the next one."""

    def create_task_handler(self, *args: Any, **options: Any) -> OnMessage:
        """Return what each message is handed to."""
        receive: OnMessage = super().create_task_handler(*args, **options)

        def receive_readable(message: Message) -> None:
            try:
                check_readable(message)
            except Exception as error:  # noqa: BLE001 - whatever it is, the message is to blame
                self.on_decode_error(message, error)
                return
            try:
                receive(message)
            except _UNEXPECTED as error:
                if message.acknowledged:
                    raise
                self.on_decode_error(message, error)

        return receive_readable


def check_readable(message: Message) -> None:
    """Return if a message has the parts of a task's.

    Raises:
        InvalidTaskError: it does not; what decodes the body may raise anything else.
    """
    payload = message.payload
    if isinstance(payload, Mapping):
        # Celery's protocol 1, which has no header to be sealed in: the task will refuse it.
        return
    headers = message.headers
    for name in ("id", "task"):
        if not isinstance(headers.get(name), str):
            raise InvalidTaskError(f"the message has no {name}")
    match payload:
        case [list(), dict(), dict() | None]:
            return
        case _:
            raise InvalidTaskError("the message's body is not [args, kwargs, embedded]")

"""Log lines that say which task they come from, and for whom it runs."""

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

from celery import signals
from celery._state import get_current_worker_task

from tenantry.celery.scope import current_tenant, handled

Style = Literal["text", "json"]

FIELDS: Final = ("task_id", "task_name", "organization_id", "user_id")

_TEXT: Final = (
    "[%(asctime)s: %(levelname)s/%(processName)s] task=%(task_name)s id=%(task_id)s "
    "organization=%(organization_id)s user=%(user_id)s %(message)s"
)
_ABSENT: Final = "-"


class TaskContextFilter(logging.Filter):
    """Gives each record the task that logs it, its organization and its user; `-` for none.

    On a handler it sees the records of every logger, in the thread that made them.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields; no record is left out."""
        task = get_current_worker_task()
        request = None if task is None else task.request
        tenant = current_tenant()
        if request is not None:
            named = request.id, task.name
        else:
            # Of a task that it only hands on, the worker's main process says which one it is.
            told = getattr(record, "data", None)
            data = told if isinstance(told, dict) else {}
            named = handled.get() or (data.get("id"), data.get("name"))
        values = (
            *named,
            None if tenant is None else tenant.organization_id,
            None if tenant is None else tenant.user_id,
        )
        for field, value in zip(FIELDS, values, strict=True):
            setattr(record, field, _ABSENT if value is None else str(value))
        return True


class JsonFormatter(logging.Formatter):
    """Writes each record as one line of JSON: time in UTC, level, message, the task it is of."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what a task logs cannot break out of it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "process": record.processName,
            "message": record.getMessage(),
        }
        for field in FIELDS:
            value = getattr(record, field, _ABSENT)
            line[field] = None if value == _ABSENT else value
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def install_logging(*, style: Style = "text") -> None:
    """Have every line that a worker logs say task id and name, organization and user.

    It takes part in Celery's own set-up of logging, which does not happen where a program connects
    to `setup_logging`: there, call `add_task_context` with each handler.

    Args:
        style: `json` writes one object a line.
    """

    def on_handlers(logger: logging.Logger, **_: Any) -> None:
        for handler in logger.handlers:
            add_task_context(handler, style=style)

    for signal in (signals.after_setup_logger, signals.after_setup_task_logger):
        signal.connect(on_handlers, weak=False, dispatch_uid="tenantry.celery.logs")


def add_task_context(handler: logging.Handler, *, style: Style = "text") -> None:
    """Have one handler's lines say which task they come from."""
    if not any(isinstance(known, TaskContextFilter) for known in handler.filters):
        handler.addFilter(TaskContextFilter())
    handler.setFormatter(_FORMATTERS[style]())


_FORMATTERS: Final[dict[Style, Callable[[], logging.Formatter]]] = {
    "text": lambda: logging.Formatter(_TEXT),
    "json": JsonFormatter,
}

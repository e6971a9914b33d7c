"""PostgreSQL as Celery's broker: one statement a message, and none that stops the worker."""

import logging
import os
import threading
from contextlib import suppress
from queue import Empty
from typing import Any, Final

from kombu.transport import sqlalchemy
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import dumps, loads
from sqlalchemy import Connection, Engine, create_engine, delete, insert, literal, select
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError, ProgrammingError

from tenantry.exceptions import MissingMigrationsError

logger = logging.getLogger("tenantry.celery")

_OF_KOMBU: Final = frozenset(
    {
        *("queue_tablename", "message_tablename", "polling_interval", "callback", "errback"),
        *("max_retries", "interval_start", "interval_step", "interval_max", "retry_errors"),
    }
)
# No schema to create in; no such schema; no privilege on it.
_NO_SCHEMA: Final = frozenset({"3F000", "42501"})
_MUTEX: Final = threading.RLock()


class Channel(sqlalchemy.Channel):
    """Hands each message out once and keeps none that was handed out.

    kombu's own keeps every message for ever, makes its readers wait for each other, and lets what
    is no message of Celery's end the worker. The tables are the same.
    """

    def _engine_from_config(self) -> Engine:
        client = self.connection.client
        given = {k: v for k, v in client.transport_options.items() if k not in _OF_KOMBU}
        # Each operation is one statement. A connection that a restart of the server has broken is
        # noticed before it is used.
        options = {"pool_pre_ping": True, "isolation_level": "AUTOCOMMIT"} | given
        return create_engine(client.hostname, **options)

    def _open(self) -> tuple[Engine, Any]:
        with _MUTEX:
            try:
                return self._opened()
            except ProgrammingError as error:
                if getattr(error.orig, "pgcode", None) not in _NO_SCHEMA:
                    raise
                raise MissingMigrationsError(
                    "PostgreSQL is Celery's broker, and its login has no schema for the messages: "
                    f"{str(error.orig).partition(chr(10))[0]}. Run `alembic upgrade head`, and "
                    "connect as a login whose search_path is the broker's schema"
                ) from error

    def _opened(self) -> tuple[Engine, Any]:
        try:
            opened: tuple[Engine, Any] = super()._open()
        except (IntegrityError, ProgrammingError) as error:
            # 23505, 42P07: another process has made the tables at the same moment.
            if getattr(error.orig, "pgcode", None) not in {"23505", "42P07"}:
                raise
            opened = super()._open()
        return opened

    def _connect(self) -> Connection:
        engine, _ = self._open()
        return engine.connect()

    def _new_queue(self, queue: str, **_: Any) -> None:
        queues = self.queue_cls.__table__
        with self._connect() as connection:
            if connection.scalar(select(queues.c.id).where(queues.c.name == queue)) is None:
                # Unless another process makes it at this moment.
                with suppress(IntegrityError):
                    connection.execute(insert(queues).values(name=queue))

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        queues, messages = self.queue_cls.__table__, self.message_cls.__table__
        text = dumps(payload)
        statement = insert(messages).from_select(
            ["queue_id", "payload", "visible", "version"],
            select(queues.c.id, literal(text), literal(value=True), literal(1)).where(
                queues.c.name == queue
            ),
        )
        with self._connect() as connection:
            if connection.execute(statement).rowcount:
                return
        self._new_queue(queue)
        with self._connect() as connection:
            connection.execute(statement)

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002
        queues, messages = self.queue_cls.__table__, self.message_cls.__table__
        next_one = (
            select(messages.c.id)
            .where(
                messages.c.queue_id
                == select(queues.c.id).where(queues.c.name == queue).scalar_subquery(),
                messages.c.visible,
            )
            .order_by(messages.c.id)
            .limit(1)
            .with_for_update(skip_locked=True)
            .scalar_subquery()
        )
        with self._connect() as connection:
            taken = connection.execute(
                delete(messages).where(messages.c.id == next_one).returning(messages.c.payload)
            ).scalar_one_or_none()
        if taken is None:
            raise Empty
        try:
            message = loads(bytes_to_str(taken))
            self.Message(message, channel=self)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            logger.error("queue %s held something that is no message: %r", queue, error)  # noqa: TRY400 - the trace says nothing
            raise Empty from error
        return message


class Transport(sqlalchemy.Transport):
    """kombu's transport over SQLAlchemy with these channels; it asks ten times a second.

    `broker_transport_options={"polling_interval": seconds}` changes that.
    """

    Channel = Channel
    connection_errors = (OperationalError, InterfaceError)  # type: ignore[assignment]
    polling_interval = 0.1


def _forget_connections() -> None:
    """In a forked child: leave the parent's connections to the parent.

    A child of the pool that replaces another one inherits those of the worker's consumer.
    """
    for engine, _ in list(sqlalchemy.Channel._engines.values()):
        engine.dispose(close=False)


os.register_at_fork(after_in_child=_forget_connections)

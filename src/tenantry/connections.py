"""Connections of psycopg2 whose cursors carry the context, and whose BEGIN can go with it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, Self

from psycopg2 import Error, ProgrammingError, extensions

from tenantry.cursors import carrying
from tenantry.exceptions import ConfigurationError, UnfilterableStatementError
from tenantry.states import ConnectionState

_IDLE: Final = extensions.TRANSACTION_STATUS_IDLE
_driver_autocommit: Final[Any] = vars(extensions.connection)["autocommit"]
_driver_status: Final[Any] = vars(extensions.connection)["status"]


def _settable_outside(name: str) -> Any:
    driver: Any = vars(extensions.connection)[name]

    def put(self: "TenantConnection", value: object) -> None:
        self._refuse_inside(name)
        driver.__set__(self, value)

    return property(driver.__get__, put, doc="As the driver has it.")


class TenantConnection(extensions.connection):
    """A psycopg2 connection on which every cursor, of whatever class, carries the context.

    Where its transactions are folded, the driver believes itself in autocommit, while BEGIN went
    with the context and COMMIT is sent from here; seen from outside nothing is different.
    """

    state: ConnectionState | None = None
    guarded = False
    _asked_autocommit = False
    _entered = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Connect as the driver does."""
        super().__init__(*args, **kwargs)
        self._folding = threading.RLock()

    def __enter__(self) -> Self:
        """Begin the driver's own block, in which it says BEGIN itself."""
        super().__enter__()
        self._entered = True
        return self

    def __exit__(self, *args: Any) -> None:
        """Commit, or roll back after an exception."""
        self._entered = False
        super().__exit__(*args)

    def cursor(
        self,
        name: Any = None,
        cursor_factory: Any = None,
        withhold: bool = False,
        scrollable: bool | None = None,
    ) -> Any:
        """Open a cursor that carries the context; a guarded one where filters are the only wall."""
        factory = carrying(cursor_factory or self.cursor_factory, self.guarded)
        return super().cursor(name, factory, withhold, scrollable)

    def lobject(self, *args: Any, **kwargs: Any) -> Any:
        """Open a large object; refused where filters are the only wall."""
        if self.guarded:
            raise UnfilterableStatementError("large objects belong to no tenant: use a table")
        self.send_context()
        with self.unfolded():
            return super().lobject(*args, **kwargs)

    def send_context(self) -> None:
        """Send the context in a message of its own, if it has not been sent.

        Raises:
            ConfigurationError: it would end with that message.
        """
        state = self.state
        if state is None or state.pending is None:
            return
        if state.local and self.autocommit:
            raise ConfigurationError(
                "AUTOCOMMIT cannot carry a tenant here: the setting ends with its transaction "
                "(scope 'transaction'), so each statement would run without one"
            )
        extensions.cursor(self).execute(state.pending)
        state.pending = None

    # Ends of transactions

    def commit(self) -> None:
        """Commit."""
        if self.state is not None:
            self.state.end_transaction()
        if self.folded:
            self._end("commit")
        else:
            super().commit()

    def rollback(self) -> None:
        """Roll back."""
        if self.state is not None:
            self.state.end_transaction()
        if self.folded:
            self._end("rollback")
        else:
            super().rollback()

    def reset(self) -> None:
        """Roll back, and set the session's settings back."""
        self.rollback()
        super().reset()
        self._asked_autocommit = _driver_autocommit.__get__(self)

    # Folded transactions

    @property
    def folded(self) -> bool:
        """Whether the driver was put into autocommit from here, for one transaction."""
        return not self._asked_autocommit and bool(_driver_autocommit.__get__(self))

    @property
    def foldable(self) -> bool:
        """Whether a transaction can begin here with a plain BEGIN."""
        return (
            self.status == extensions.STATUS_READY
            and not self._asked_autocommit
            and not self._entered
            and self.isolation_level is None
            and self.readonly is None
            and self.deferrable is None
        )

    def fold(self, send: Callable[[str], None]) -> None:
        """Have a message sent that begins the transaction itself."""
        with self._folding:
            if not self.foldable:
                send("")
                return
            try:
                _driver_autocommit.__set__(self, True)
                send("begin;")
            except Error as error:
                if error.pgcode is not None and self.get_transaction_status() == _IDLE:
                    self._abort()
                raise
            finally:
                self._unfold_if_idle()

    def _abort(self) -> None:
        """Have the transaction begun and failed, as if the message that was not read had been."""
        cursor = extensions.cursor(self)
        cursor.execute("begin")
        with suppress(Error):
            cursor.execute('rollback to savepoint "the statement before this one was not read"')

    def _end(self, command: str) -> None:
        try:
            if self.get_transaction_status() != _IDLE:
                extensions.cursor(self).execute(command)
        finally:
            self._unfold_if_idle()

    def _unfold_if_idle(self) -> None:
        if not self.closed and self.get_transaction_status() == _IDLE:
            _driver_autocommit.__set__(self, False)

    @contextmanager
    def unfolded(self) -> Iterator[None]:
        """Let the driver take a folded transaction over, as named cursors and large objects need.

        It says BEGIN, which changes nothing and which the server warns about.
        """
        if not self.folded or self.get_transaction_status() == _IDLE:
            yield
            return
        told = len(self.notices)
        _driver_autocommit.__set__(self, False)
        yield
        del self.notices[told : told + 1]

    # What the driver tells of its transaction, and refuses inside of one

    @property
    def status(self) -> int:
        """As the driver has it."""
        status: int = _driver_status.__get__(self)
        if (
            status == extensions.STATUS_READY
            and self.folded
            and self.get_transaction_status() != _IDLE
        ):
            return extensions.STATUS_BEGIN
        return status

    @property
    def autocommit(self) -> bool:
        """As the driver has it."""
        return self._asked_autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._refuse_inside("autocommit")
        _driver_autocommit.__set__(self, value)
        self._asked_autocommit = _driver_autocommit.__get__(self)

    isolation_level = _settable_outside("isolation_level")
    readonly = _settable_outside("readonly")
    deferrable = _settable_outside("deferrable")

    def set_session(self, *args: Any, **kwargs: Any) -> None:
        """Set what later transactions are like."""
        self._refuse_inside("set_session")
        super().set_session(*args, **kwargs)
        self._asked_autocommit = _driver_autocommit.__get__(self)

    def set_isolation_level(self, level: int | None) -> None:
        """Roll back, and set the isolation level of later transactions."""
        if self.folded:
            self.rollback()
        super().set_isolation_level(level)
        self._asked_autocommit = _driver_autocommit.__get__(self)

    def set_client_encoding(self, encoding: str) -> None:
        """Roll back, and set the encoding."""
        if self.folded:
            self.rollback()
        super().set_client_encoding(encoding)

    def tpc_begin(self, xid: Any) -> None:
        """Begin a two-phase transaction."""
        self._refuse_inside("tpc_begin")
        super().tpc_begin(xid)

    def _refuse_inside(self, what: str) -> None:
        if self.folded and self.status == extensions.STATUS_BEGIN:
            raise ProgrammingError(f"{what} cannot be used inside a transaction")

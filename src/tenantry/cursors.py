"""Cursors of psycopg2 that let no message go ahead of its transaction's context."""

import functools
import re
from typing import Any, Final

from psycopg2 import extensions
from psycopg2.sql import Composable

from tenantry.exceptions import ConfigurationError
from tenantry.gate import CursorGuard
from tenantry.states import ConnectionState
from tenantry.traces import leaves_traces

_driver_query: Final[Any] = vars(extensions.cursor)["query"]

# What begins with one of these is the only command of which a prefix is certain to change nothing:
# not its result, since it is no empty query, nor whether it may run, since it needs no
# transaction of its own. A comment that could hold another one is not looked through.
_QUERY: Final = r"(?:[\s(]|/\*[^*/]*\*/)*(?:select|insert|update|delete|with|values|savepoint)\b"
_ENDING: Final = r"\s*(?:commit|rollback|abort|end|release)\b"
_query: Final = re.compile(_QUERY, re.IGNORECASE)
_query_bytes: Final = re.compile(_QUERY.encode(), re.IGNORECASE)
_ending: Final = re.compile(_ENDING, re.IGNORECASE)


class ContextCursor(extensions.cursor):
    """A cursor that has the context in place before anything of the transaction is executed.

    A query takes it along; whatever else comes first is preceded by it. Stands next to the driver's
    own class, below any other, so that it sees what is really sent.
    """

    _lead = b""

    @property
    def query(self) -> bytes | None:
        """What was sent last, without the context in front of it."""
        query: bytes | None = _driver_query.__get__(self)
        return query[len(self._lead) :] if query and query.startswith(self._lead) else query

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        """Execute a command, in front of which the context goes if it is the first."""
        connection: Any = self.connection
        state = _state_of(connection)
        if state is None:
            super().execute(query, vars)
            return
        # A cursor WITH HOLD keeps its rows for whoever knows its name.
        if not state.traces and (
            self.withhold or leaves_traces(query, vars, state.isolation.steady_functions)
        ):
            state.traces = True
        self._lead = b""
        if self.name is not None:
            # It becomes a part of DECLARE.
            connection.send_context()
            with connection.unfolded():
                super().execute(query, vars)
        elif state.pending is None:
            super().execute(query, vars)
        else:
            self._execute_first(connection, state, query, vars)

    def _execute_first(
        self, connection: Any, state: ConnectionState, query: Any, vars_: Any
    ) -> None:
        if isinstance(query, Composable):
            query = query.as_string(self)
        if not _is_query(query) or connection.autocommit:
            if not (isinstance(query, str) and _ending.match(query)):
                connection.send_context()
            super().execute(query, vars_)
            return
        context = state.pending

        def send(opening: str) -> None:
            lead = f"{opening}{context};\n"
            self._lead = lead.encode()
            message = lead + query if isinstance(query, str) else self._lead + query
            super(ContextCursor, self).execute(message, vars_)

        state.way.carry(connection, send)
        # What fails has told the server nothing: the next message takes it along again.
        if state.pending is context:
            state.pending = None

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Execute a command for several rows, each a message, which the context precedes."""
        self._prepare()
        super().executemany(query, vars_list)

    def callproc(self, *args: Any) -> Any:
        """Call a function, which the context precedes."""
        self._prepare()
        return super().callproc(*args)

    def copy_expert(self, *args: Any, **kwargs: Any) -> Any:
        """Copy rows, which the context precedes."""
        self._prepare()
        return super().copy_expert(*args, **kwargs)

    def copy_from(self, *args: Any, **kwargs: Any) -> Any:
        """Copy rows from a file, which the context precedes."""
        self._prepare()
        return super().copy_from(*args, **kwargs)

    def copy_to(self, *args: Any, **kwargs: Any) -> Any:
        """Copy rows to a file, which the context precedes."""
        self._prepare()
        return super().copy_to(*args, **kwargs)

    def _prepare(self) -> None:
        state = _state_of(self.connection)
        if state is not None:
            state.traces = True
            self.connection.send_context()  # type: ignore[attr-defined]


class VerifiedCursor:
    """Notices a cursor class of the application's that goes round the context; mixed into it."""

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        """Execute a command, and see that the context went with it."""
        state = _state_of(self.connection)  # type: ignore[attr-defined]
        context = state.pending if state else None
        super().execute(query, vars)  # type: ignore[misc]
        if state and context and state.pending is context and not _ending.match(str(query)):
            raise ConfigurationError(
                f"{type(self).__name__}.execute() calls the driver's cursor by its name, and so "
                "went round the tenant, without which it sees no rows: have it call "
                "super().execute()"
            )


def _state_of(connection: object) -> ConnectionState | None:
    state: ConnectionState | None = getattr(connection, "state", None)
    return state


def _is_query(query: object) -> bool:
    if isinstance(query, str):
        return _query.match(query) is not None
    return isinstance(query, bytes) and _query_bytes.match(query) is not None


@functools.lru_cache(maxsize=256)
def carrying(factory: Any, guarded: bool) -> type:
    """Return the cursor class that was asked for, with what carries the context in it."""
    asked = ContextCursor if factory in {None, extensions.cursor} else factory
    if not isinstance(asked, type) or not issubclass(asked, extensions.cursor):
        raise ConfigurationError(
            f"cursor_factory {asked!r} is no subclass of psycopg2.extensions.cursor, so the tenant "
            "cannot be made a part of its cursors: use a class"
        )
    bases: list[type] = [asked]
    if not issubclass(asked, ContextCursor):
        bases.append(ContextCursor)
        if asked.execute is not extensions.cursor.execute:
            bases.insert(0, VerifiedCursor)
    if guarded:
        bases.insert(0, CursorGuard)
    return type(f"Tenant{asked.__name__}", tuple(bases), {}) if len(bases) > 1 else asked

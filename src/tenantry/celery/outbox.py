"""What a Session's transaction does after its commit, and never after a rollback."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import event
from sqlalchemy.orm import Session, SessionTransaction

_INFO_KEY: Final = "tenantry_outbox"


@dataclass(slots=True)
class _Entry:
    transaction: SessionTransaction | None
    action: Callable[[], object]


@dataclass(slots=True)
class _Outbox:
    entries: list[_Entry] = field(default_factory=list)
    committed: SessionTransaction | None = None


def after_commit(session: Session, action: Callable[[], object]) -> None:
    """Run the action once the Session's transaction is committed and its connection is free.

    Nothing is run if the transaction is rolled back, or the savepoint that is open now.
    """
    if not session.in_transaction():
        session.begin()
    outbox: _Outbox = session.info.setdefault(_INFO_KEY, _Outbox())
    outbox.entries.append(_Entry(_innermost(session), action))


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


@event.listens_for(Session, "after_commit")
def _on_after_commit(session: Session) -> None:
    outbox: _Outbox | None = session.info.get(_INFO_KEY)
    if outbox is not None:
        outbox.committed = _innermost(session)


@event.listens_for(Session, "after_transaction_end")
def _on_after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    outbox: _Outbox | None = session.info.get(_INFO_KEY)
    if outbox is None or not (transaction.nested or transaction.parent is None):
        return
    committed, outbox.committed = outbox.committed is transaction, None
    if transaction.nested:
        for entry in [e for e in outbox.entries if e.transaction is transaction]:
            if committed:
                entry.transaction = transaction.parent
            else:
                outbox.entries.remove(entry)
        return
    # An action may use the Session again, so it finds no outbox of this transaction any more.
    del session.info[_INFO_KEY]
    if committed:
        for entry in outbox.entries:
            entry.action()

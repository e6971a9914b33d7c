"""What a violated constraint means to whoever sent the row."""

from collections.abc import Mapping

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from assay.exceptions import AssayError


def flush(session: Session, meanings: Mapping[str, AssayError]) -> None:
    """Send what is pending; a violated constraint is raised as what it means.

    Args:
        session: whose transaction is to be rolled back after an error.
        meanings: by the constraint's name.

    Raises:
        AssayError: the meaning.
        IntegrityError: another constraint was violated.
    """
    try:
        session.flush()
    except IntegrityError as error:
        diagnostics = getattr(error.orig, "diag", None)
        meaning = meanings.get(getattr(diagnostics, "constraint_name", None) or "")
        if meaning is None:
            raise
        raise meaning from error

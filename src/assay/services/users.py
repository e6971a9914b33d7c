"""Users, seen by their organization."""

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from assay.exceptions import DuplicateUserError, UnknownUserError
from assay.models import User
from assay.services.constraints import flush
from assay.services.organizations import checked_email
from assay.services.pages import Page, read_page


def create_user(session: Session, email: str, name: str | None = None) -> User:
    """Create a user of the Session's organization.

    Raises:
        InvalidValueError: the email address is none.
        DuplicateUserError: a user of the organization has it.
    """
    email = checked_email(email)
    created = User(id=uuid.uuid4(), email=email, name=name or email.partition("@")[0])
    session.add(created)
    error = DuplicateUserError(f"the organization already has a user {email}")
    flush(session, {"uq_users_organization_id_email": error})
    return created


def get_user(session: Session, user_id: uuid.UUID) -> User:
    """Return a user of the Session's organization.

    Raises:
        UnknownUserError: the organization has none of this id.
    """
    found = session.scalars(select(User).where(User.id == user_id)).one_or_none()
    if found is None:
        raise UnknownUserError("there is no such user")
    return found


def find_user(session: Session, reference: str) -> User:
    """Return the user of the Session's organization with this email address.

    Raises:
        UnknownUserError: it has none.
    """
    found = session.scalars(select(User).where(User.email == reference.strip())).one_or_none()
    if found is None:
        raise UnknownUserError(
            f"the organization has no user with the email address {reference!r}: `assay "
            "organizations create NAME --user EMAIL` makes the first, `POST /users` others"
        )
    return found


def page_of_users(session: Session, *, size: int, after: str | None = None) -> Page[User]:
    """Return a part of the list of the organization's users, oldest first.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    return read_page(session, select(User), User, size=size, after=after)

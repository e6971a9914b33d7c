"""API tokens: made once and shown once, found by their hash, ended by their owner or by time."""

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from assay.exceptions import UnknownTokenError
from assay.models import ApiToken, User
from assay.services.pages import Page, read_page
from assay.services.values import checked_name

TOKEN_PREFIX: Final = "assay_"  # noqa: S105 - what every token begins with
_SHOWN: Final = len(TOKEN_PREFIX) + 6

LIFETIME: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token, and the only copy of its text."""

    record: ApiToken
    text: str


@dataclass(frozen=True, slots=True)
class TokenOwner:
    """Whose token it is."""

    organization_id: uuid.UUID
    user_id: uuid.UUID


def token_hash(text: str) -> bytes:
    """Return what is stored of a token. It has 256 random bits, so that one round is enough."""
    return hashlib.sha256(text.encode()).digest()


def issue_token(
    session: Session, user_id: uuid.UUID, name: str, *, lifetime: timedelta = LIFETIME
) -> IssuedToken:
    """Give a user of the Session's organization a token of 256 random bits that ends by itself.

    Raises:
        InvalidValueError: the name is blank, too long or holds a control character.
    """
    text = TOKEN_PREFIX + secrets.token_urlsafe(32)
    record = ApiToken(
        user_id=user_id,
        name=checked_name(name, what="the token's name"),
        prefix=text[:_SHOWN],
        token_hash=token_hash(text),
        expires_at=datetime.now(UTC) + lifetime,
    )
    session.add(record)
    session.flush()
    return IssuedToken(record, text)


def page_of_tokens(
    session: Session, user_id: uuid.UUID, *, size: int, after: str | None = None
) -> Page[ApiToken]:
    """Return a part of the list of a user's tokens, oldest first.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    query = select(ApiToken).where(ApiToken.user_id == user_id)
    return read_page(session, query, ApiToken, size=size, after=after)


def list_tokens(session: Session) -> list[tuple[ApiToken, str]]:
    """Return the tokens of the Session's organization with their users' email addresses."""
    query = select(ApiToken, User.email).join(User, User.id == ApiToken.user_id)
    rows = session.execute(query.order_by(User.email, ApiToken.created_at, ApiToken.id))
    return [(row.ApiToken, row.email) for row in rows]


def revoke_token(
    session: Session, token_id: uuid.UUID, *, user_id: uuid.UUID | None = None
) -> None:
    """End a token of the Session's organization; from now on it is nobody's.

    Args:
        session: of the organization.
        token_id: of the token.
        user_id: whose it has to be; None for anybody's.

    Raises:
        UnknownTokenError: the organization, or the user, has no such token.
    """
    query = select(ApiToken).where(ApiToken.id == token_id)
    if user_id is not None:
        query = query.where(ApiToken.user_id == user_id)
    token = session.scalars(query).one_or_none()
    if token is None:
        raise UnknownTokenError("there is no such token")
    if token.revoked_at is None:
        token.revoked_at = datetime.now(UTC)
        session.flush()


def find_owner(session: Session, text: str) -> TokenOwner | None:
    """Return whose token this is, or None where it is unknown, expired or revoked.

    The one look before a tenant is known, by the function of `tenantry_authenticator`: the Session
    has no tenant and sees no table.
    """
    # Without its schema: where explicit filters are the only wall, a name of one is refused.
    found = func.authenticate_token(token_hash(text)).table_valued("organization_id", "user_id")
    row = session.execute(select(found.c.organization_id, found.c.user_id)).one_or_none()
    return None if row is None else TokenOwner(*row)


def note_use(session: Session, text: str) -> None:
    """Keep when a token of the Session's organization was used; to the minute is enough."""
    recent = func.now() - timedelta(minutes=1)
    # Never waited for: what holds the row would hold up every request that is authenticated.
    token_id = session.scalar(
        select(ApiToken.id)
        .where(
            ApiToken.token_hash == token_hash(text),
            or_(ApiToken.last_used_at.is_(None), ApiToken.last_used_at < recent),
        )
        .with_for_update(skip_locked=True)
    )
    if token_id is not None:
        session.execute(
            update(ApiToken)
            .where(ApiToken.id == token_id)
            .values(last_used_at=func.now(), updated_at=ApiToken.updated_at),
            execution_options={"synchronize_session": False},
        )

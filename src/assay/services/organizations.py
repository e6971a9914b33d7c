"""Organizations and their users: created under row-level security, found by id or by name."""

import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from assay.database import SessionLocal
from assay.exceptions import (
    AmbiguousOrganizationError,
    DuplicateUserError,
    InvalidValueError,
    UnknownOrganizationError,
)
from assay.models import Organization, User
from assay.services.constraints import flush
from assay.services.values import checked_name
from tenantry import ConfigurationError, maintenance_session, tenant_scope

# What somebody means as an id even where a digit is missing. Looking it up as a name would be
# work across tenants, and logged as such, for nothing.
_MEANT_AS_ID: Final = re.compile(r"[0-9A-Fa-f{}-]{20,}")

_EMAIL: Final = re.compile(r"[^@\s]+@[^@\s]+")

Sessions = Callable[[], Session]


@dataclass(frozen=True, slots=True)
class OrganizationSummary:
    """An organization as others refer to it."""

    id: uuid.UUID
    name: str


def create_organization(
    name: str, *, users: Iterable[str] = (), sessions: Sessions = SessionLocal
) -> OrganizationSummary:
    """Create an organization, with users if any, in one transaction of its own tenant.

    The id is made here and bound as the tenant first: row-level security lets the application
    role insert the one organization that it is working for.

    Args:
        name: need not be unique.
        users: email addresses.
        sessions: makes the Session.

    Raises:
        InvalidValueError: the name or an email address is none.
        DuplicateUserError: an email address is named twice.
    """
    name = checked_name(name, what="the organization's name")
    emails = [checked_email(email) for email in users]
    organization_id = uuid.uuid4()
    with tenant_scope(organization_id, sessions=sessions) as session:
        session.add(Organization(id=organization_id, name=name))
        session.flush()
        _insert_users(session, emails)
    return OrganizationSummary(organization_id, name)


def add_users(
    organization_id: uuid.UUID, emails: Iterable[str], *, sessions: Sessions = SessionLocal
) -> list[uuid.UUID]:
    """Add users to an organization, all or none, and return their ids in the same order.

    Raises:
        InvalidValueError: an email address is none.
        DuplicateUserError: a user with this address exists, or it is named twice.
        UnknownTenantError: the organization does not exist.
    """
    checked = [checked_email(email) for email in emails]
    with tenant_scope(organization_id, sessions=sessions) as session:
        return _insert_users(session, checked)


def find_organization(
    reference: str,
    *,
    reason: str,
    actor: str,
    sessions: Sessions = SessionLocal,
    maintenance_engine: Engine | None = None,
) -> OrganizationSummary:
    """Return the organization of this id or name.

    An id is looked up as the application role, within that organization. A name is work across
    tenants: it takes the maintenance role and leaves a record in the log.

    Args:
        reference: an id or a name.
        reason: why, for the log.
        actor: who, for the log.
        sessions: makes the Session for an id.
        maintenance_engine: for a name; by default the environment's.

    Raises:
        UnknownOrganizationError: there is none.
        AmbiguousOrganizationError: several have this name.
        InvalidValueError: it is blank, or meant as an id and none.
        ConfigurationError: a name was given, and there is no login for work across tenants.
    """
    reference = reference.strip()
    if _is_id(reference):
        return get_organization(reference, sessions=sessions)
    if _MEANT_AS_ID.fullmatch(reference):
        raise InvalidValueError(
            f"{reference!r} looks like an organization's id and is no UUID: 32 hexadecimal digits "
            "are one"
        )
    name = checked_name(reference, what="the organization")
    try:
        with maintenance_session(reason=reason, actor=actor, engine=maintenance_engine) as session:
            found = _summaries(session, name)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"{error}. Or give the organization's id, which needs no such login"
        ) from error
    if not found:
        raise UnknownOrganizationError(
            f"no organization is named {name!r}: create it with `assay organizations create "
            "NAME`, or give the id of one"
        )
    if len(found) > 1:
        ids = ", ".join(str(organization.id) for organization in found)
        raise AmbiguousOrganizationError(
            f"{len(found)} organizations are named {name!r}: give the id of one of them, {ids}"
        )
    return found[0]


def get_organization(
    organization_id: object, *, sessions: Sessions = SessionLocal
) -> OrganizationSummary:
    """Return the organization of this id, looked up within itself.

    Raises:
        InvalidTenantError: this is no id.
        UnknownOrganizationError: there is none.
    """
    with tenant_scope(organization_id, sessions=sessions) as session:
        found = _summaries(session)
    if not found:
        raise UnknownOrganizationError(
            f"no organization has the id {organization_id}: create one with `assay organizations "
            "create NAME`, which prints its id"
        )
    return found[0]


def own_organization(session: Session) -> Organization:
    """Return the organization that the Session is bound to; row-level security shows no other.

    Raises:
        UnknownOrganizationError: it does not exist any more.
    """
    found = session.scalars(select(Organization)).one_or_none()
    if found is None:
        raise UnknownOrganizationError("the organization does not exist any more")
    return found


def list_organizations(
    *, reason: str, actor: str, maintenance_engine: Engine | None = None
) -> list[OrganizationSummary]:
    """Return all organizations by name; work across tenants, recorded in the log.

    Raises:
        ConfigurationError: there is no login for it, or reason or actor is blank.
    """
    with maintenance_session(reason=reason, actor=actor, engine=maintenance_engine) as session:
        return _summaries(session)


def _summaries(session: Session, name: str | None = None) -> list[OrganizationSummary]:
    query = select(Organization.id, Organization.name).order_by(Organization.name, Organization.id)
    if name is not None:
        query = query.where(Organization.name == name)
    return [OrganizationSummary(*row) for row in session.execute(query)]


def _insert_users(session: Session, emails: list[str]) -> list[uuid.UUID]:
    users = [User(id=uuid.uuid4(), email=email, name=email.partition("@")[0]) for email in emails]
    session.add_all(users)
    error = DuplicateUserError(
        f"a user has this email address already, or it is named twice: {', '.join(emails)}"
    )
    flush(session, {"uq_users_organization_id_email": error})
    return [user.id for user in users]


def checked_email(text: str) -> str:
    email = checked_name(text, what="the email address")
    if not _EMAIL.fullmatch(email):
        raise InvalidValueError(f"{email!r} is no email address: write name@example.org")
    return email


def _is_id(reference: str) -> bool:
    try:
        uuid.UUID(reference)
    except ValueError:
        return False
    return True

"""Endpoints: the applications under test that an organization has, and where they are."""

import ipaddress
import uuid

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from assay.config import EndpointPolicy
from assay.exceptions import (
    DuplicateEndpointError,
    InUseError,
    RefusedEndpointError,
    UnknownEndpointError,
)
from assay.models import Endpoint, TestConfiguration
from assay.services.addresses import is_allowed
from assay.services.constraints import flush
from assay.services.endpoints import checked_url
from assay.services.pages import Page, read_page


def create_endpoint(
    session: Session, name: str, url: str, *, timeout_seconds: int, policy: EndpointPolicy
) -> Endpoint:
    """Create an endpoint of the Session's organization.

    Raises:
        RefusedEndpointError: the URL is one that Assay does not call.
        DuplicateEndpointError: the organization has an endpoint of this name.
    """
    created = Endpoint(
        id=uuid.uuid4(),
        name=name,
        url=callable_url(url, policy),
        timeout_seconds=timeout_seconds,
    )
    session.add(created)
    _flush(session, name)
    return created


def get_endpoint(session: Session, endpoint_id: uuid.UUID, *, lock: bool = False) -> Endpoint:
    """Return an endpoint of the Session's organization.

    Raises:
        UnknownEndpointError: the organization has none of this id.
    """
    query = select(Endpoint).where(Endpoint.id == endpoint_id)
    found = session.scalars(query.with_for_update() if lock else query).one_or_none()
    if found is None:
        raise UnknownEndpointError("there is no such endpoint")
    return found


def change_endpoint(
    session: Session,
    endpoint_id: uuid.UUID,
    *,
    policy: EndpointPolicy,
    name: str | None = None,
    url: str | None = None,
    timeout_seconds: int | None = None,
) -> Endpoint:
    """Change what is given of an endpoint; a run under way asks the new one from its next test on.

    Raises:
        UnknownEndpointError: the organization has none of this id.
        RefusedEndpointError: the URL is one that Assay does not call.
        DuplicateEndpointError: the organization has another endpoint of this name.
    """
    found = get_endpoint(session, endpoint_id)
    if name is not None:
        found.name = name
    if url is not None:
        found.url = callable_url(url, policy)
    if timeout_seconds is not None:
        found.timeout_seconds = timeout_seconds
    _flush(session, found.name)
    session.refresh(found)
    return found


def delete_endpoint(session: Session, endpoint_id: uuid.UUID) -> None:
    """Delete an endpoint that no configuration names.

    Raises:
        UnknownEndpointError: the organization has none of this id.
        InUseError: a configuration names it.
    """
    # Locked first: a configuration that is being made for it waits, or is seen.
    found = get_endpoint(session, endpoint_id, lock=True)
    if session.scalar(select(exists().where(TestConfiguration.endpoint_id == endpoint_id))):
        raise InUseError("a test configuration names the endpoint: delete or change that first")
    session.delete(found)
    session.flush()


def page_of_endpoints(session: Session, *, size: int, after: str | None = None) -> Page[Endpoint]:
    """Return a part of the list of the organization's endpoints, oldest first.

    Raises:
        InvalidValueError: `after` is not what a page gave.
    """
    return read_page(session, select(Endpoint), Endpoint, size=size, after=after)


def callable_url(text: str, policy: EndpointPolicy) -> str:
    """Return the URL of an endpoint as it is called, as far as can be told without a look-up.

    A name is resolved, and judged again, each time that it is called.

    Raises:
        RefusedEndpointError: it is no URL that Assay calls, or an address that is not public.
    """
    url = checked_url(text, policy)
    try:
        address = ipaddress.ip_address(url.host)
    except ValueError:
        return str(url)
    if not is_allowed(address, policy.networks):
        raise RefusedEndpointError(
            f"{address} is no public address: an operator allows a private network in "
            "ASSAY_ALLOWED_NETWORKS"
        )
    return str(url)


def _flush(session: Session, name: str) -> None:
    error = DuplicateEndpointError(f"the organization already has an endpoint named {name!r}")
    flush(session, {"uq_endpoints_organization_id_name": error})

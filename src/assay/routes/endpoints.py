"""`/endpoints`: the applications under test of the token's organization."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, status

from assay.authentication import TenantSession
from assay.config import EndpointPolicy
from assay.models import Endpoint
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.endpoints import EndpointChange, EndpointCreate, EndpointOut, EndpointPage
from assay.services import targets
from assay.services.pages import Page

router = APIRouter(prefix="/endpoints", tags=["endpoints"])


def _policy(request: Request) -> EndpointPolicy:
    policy: EndpointPolicy = request.app.state.endpoints
    return policy


Policy = Annotated[EndpointPolicy, Depends(_policy)]


@router.get("", response_model=EndpointPage, responses=problems())
def list_endpoints(db: TenantSession, page: Annotated[PageQuery, Query()]) -> Page[Endpoint]:
    """List the endpoints, oldest first, a page at a time."""
    return targets.page_of_endpoints(db, size=page.size, after=page.after)


@router.post(
    "",
    response_model=EndpointOut,
    status_code=status.HTTP_201_CREATED,
    responses=problems(409, 413),
)
def create_endpoint(db: TenantSession, policy: Policy, new: EndpointCreate) -> Endpoint:
    """Create an endpoint; its name is new to the organization."""
    return targets.create_endpoint(
        db, new.name, new.url, timeout_seconds=new.timeout_seconds, policy=policy
    )


@router.get("/{endpoint_id}", response_model=EndpointOut, responses=problems(404))
def get_endpoint(db: TenantSession, endpoint_id: uuid.UUID) -> Endpoint:
    """Show an endpoint."""
    return targets.get_endpoint(db, endpoint_id)


@router.patch("/{endpoint_id}", response_model=EndpointOut, responses=problems(404, 409, 413))
def change_endpoint(
    db: TenantSession, policy: Policy, endpoint_id: uuid.UUID, change: EndpointChange
) -> Endpoint:
    """Change an endpoint; a run under way asks the new one from its next test on."""
    return targets.change_endpoint(
        db,
        endpoint_id,
        policy=policy,
        name=change.name,
        url=change.url,
        timeout_seconds=change.timeout_seconds,
    )


@router.delete(
    "/{endpoint_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404, 409)
)
def delete_endpoint(db: TenantSession, endpoint_id: uuid.UUID) -> None:
    """Delete an endpoint that no configuration names."""
    targets.delete_endpoint(db, endpoint_id)

"""`/test_configurations`: what is run against what, and the launch of a run."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Header, Query, status

from assay.authentication import CurrentUser, TenantSession
from assay.models import TestConfiguration
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.test_configurations import (
    ConfigurationChange,
    ConfigurationCreate,
    ConfigurationOut,
    ConfigurationPage,
    LaunchedOut,
)
from assay.services import configurations
from assay.services.pages import Page
from assay.tasks.launches import launch_run

IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        pattern=r"^[!-~]+$",
        description="Of the client's own making, such as a UUID: however often a request with it "
        "is sent, one run is launched, and every answer names its task.",
    ),
]

router = APIRouter(prefix="/test_configurations", tags=["test configurations"])


@router.get("", response_model=ConfigurationPage, responses=problems())
def list_configurations(
    db: TenantSession, page: Annotated[PageQuery, Query()]
) -> Page[TestConfiguration]:
    """List the configurations, oldest first, a page at a time."""
    return configurations.page_of_configurations(db, size=page.size, after=page.after)


@router.post(
    "",
    response_model=ConfigurationOut,
    status_code=status.HTTP_201_CREATED,
    responses=problems(409, 413),
)
def create_configuration(db: TenantSession, new: ConfigurationCreate) -> TestConfiguration:
    """Create a configuration of a set and an endpoint; its name is new to the organization."""
    return configurations.add_configuration(
        db, new.name, test_set_id=new.test_set_id, endpoint_id=new.endpoint_id
    )


@router.get("/{configuration_id}", response_model=ConfigurationOut, responses=problems(404))
def get_configuration(db: TenantSession, configuration_id: uuid.UUID) -> TestConfiguration:
    """Show a configuration."""
    return configurations.get_configuration(db, configuration_id)


@router.patch(
    "/{configuration_id}", response_model=ConfigurationOut, responses=problems(404, 409, 413)
)
def change_configuration(
    db: TenantSession, configuration_id: uuid.UUID, change: ConfigurationChange
) -> TestConfiguration:
    """Change a configuration; its set stays while a run of it is under way."""
    return configurations.change_configuration(
        db,
        configuration_id,
        name=change.name,
        test_set_id=change.test_set_id,
        endpoint_id=change.endpoint_id,
    )


@router.delete(
    "/{configuration_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404, 409)
)
def delete_configuration(db: TenantSession, configuration_id: uuid.UUID) -> None:
    """Delete a configuration that is not being run; its runs and their results stay."""
    configurations.delete_configuration(db, configuration_id)


@router.post(
    "/{configuration_id}/execute",
    response_model=LaunchedOut,
    status_code=status.HTTP_202_ACCEPTED,
    responses=problems(404),
)
def execute_configuration(
    db: TenantSession,
    user: CurrentUser,
    configuration_id: uuid.UUID,
    idempotency_key: IdempotencyKey = None,
) -> LaunchedOut:
    """Launch a run of a configuration; it is on its way when this has been answered."""
    return LaunchedOut(task_id=launch_run(db, user, configuration_id, idempotency_key))

"""`/organizations`: the one that the token belongs to."""

from fastapi import APIRouter

from assay.authentication import TenantSession
from assay.models import Organization
from assay.routes.problems import problems
from assay.schemas.organizations import OrganizationOut
from assay.services.organizations import own_organization

router = APIRouter(prefix="/organizations", tags=["organizations"])


@router.get("/current", response_model=OrganizationOut, responses=problems())
def get_own_organization(db: TenantSession) -> Organization:
    """Show the organization that the token belongs to."""
    return own_organization(db)

"""`/test_sets/{set_id}/tests`: the tests of a set, in its order."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, status

from assay.authentication import TenantSession
from assay.models import Test
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.tests import TestChange, TestCreate, TestOut, TestPage
from assay.services import tests
from assay.services.pages import Page

router = APIRouter(prefix="/test_sets/{set_id}/tests", tags=["tests"])


@router.get("", response_model=TestPage, responses=problems(404))
def list_tests(
    db: TenantSession, set_id: uuid.UUID, page: Annotated[PageQuery, Query()]
) -> Page[Test]:
    """List a set's tests in the set's order, a page at a time."""
    return tests.page_of_tests(db, set_id, size=page.size, after=page.after)


@router.post(
    "",
    response_model=TestOut,
    status_code=status.HTTP_201_CREATED,
    responses=problems(404, 413),
)
def create_test(db: TenantSession, set_id: uuid.UUID, new: TestCreate) -> Test:
    """Add a test at the end of a set, by the rules of an import."""
    return tests.create_test(db, set_id, new.model_dump())


@router.get("/{test_id}", response_model=TestOut, responses=problems(404))
def get_test(db: TenantSession, set_id: uuid.UUID, test_id: uuid.UUID) -> Test:
    """Show a test of a set."""
    return tests.get_test(db, set_id, test_id)


@router.patch("/{test_id}", response_model=TestOut, responses=problems(404, 413))
def change_test(
    db: TenantSession, set_id: uuid.UUID, test_id: uuid.UUID, change: TestChange
) -> Test:
    """Change a test, in every set that holds it; earlier results stay as they are."""
    return tests.change_test(db, set_id, test_id, change.given())


@router.delete("/{test_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def remove_test(db: TenantSession, set_id: uuid.UUID, test_id: uuid.UUID) -> None:
    """Take a test out of a set; it is deleted unless another set or a run's result has it."""
    tests.remove_test(db, set_id, test_id)

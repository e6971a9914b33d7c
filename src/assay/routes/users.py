"""`/users`: the people of the token's organization."""

import uuid
from typing import Annotated

from fastapi import APIRouter, Query, status

from assay.authentication import CurrentUser, TenantSession
from assay.models import User
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.users import UserCreate, UserOut, UserPage
from assay.services import users
from assay.services.pages import Page

router = APIRouter(prefix="/users", tags=["users"])


@router.get("", response_model=UserPage, responses=problems())
def list_users(db: TenantSession, page: Annotated[PageQuery, Query()]) -> Page[User]:
    """List the users, oldest first, a page at a time."""
    return users.page_of_users(db, size=page.size, after=page.after)


@router.post(
    "", response_model=UserOut, status_code=status.HTTP_201_CREATED, responses=problems(409, 413)
)
def create_user(db: TenantSession, new: UserCreate) -> User:
    """Create a user; the email address is new to the organization."""
    return users.create_user(db, new.email, new.name)


@router.get("/me", response_model=UserOut, responses=problems(404))
def get_own_user(db: TenantSession, user: CurrentUser) -> User:
    """Show the user that the token belongs to."""
    return users.get_user(db, user.id)


@router.get("/{user_id}", response_model=UserOut, responses=problems(404))
def get_user(db: TenantSession, user_id: uuid.UUID) -> User:
    """Show a user."""
    return users.get_user(db, user_id)

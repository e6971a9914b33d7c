"""`/tokens`: the API tokens of the user who asks."""

import uuid
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, status

from assay.authentication import CurrentUser, TenantSession
from assay.models import ApiToken
from assay.routes.problems import problems
from assay.schemas.base import PageQuery
from assay.schemas.tokens import TokenCreate, TokenCreated, TokenOut, TokenPage
from assay.services import tokens
from assay.services.pages import Page

router = APIRouter(prefix="/tokens", tags=["tokens"])


@router.get("", response_model=TokenPage, responses=problems())
def list_tokens(
    db: TenantSession, user: CurrentUser, page: Annotated[PageQuery, Query()]
) -> Page[ApiToken]:
    """List one's own tokens, oldest first, a page at a time; ended ones too."""
    return tokens.page_of_tokens(db, user.id, size=page.size, after=page.after)


@router.post(
    "",
    response_model=TokenCreated,
    status_code=status.HTTP_201_CREATED,
    responses=problems(413),
)
def create_token(db: TenantSession, user: CurrentUser, new: TokenCreate) -> TokenCreated:
    """Create a token of one's own; the answer is the only copy of it."""
    issued = tokens.issue_token(db, user.id, new.name, lifetime=timedelta(days=new.days))
    shown = TokenOut.model_validate(issued.record)
    return TokenCreated(**shown.model_dump(), token=issued.text)


@router.delete("/{token_id}", status_code=status.HTTP_204_NO_CONTENT, responses=problems(404))
def revoke_token(db: TenantSession, user: CurrentUser, token_id: uuid.UUID) -> None:
    """Revoke a token of one's own; from now on it is nobody's."""
    tokens.revoke_token(db, token_id, user_id=user.id)

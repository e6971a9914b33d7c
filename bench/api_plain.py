"""The twin that the API is compared with: explicit filters, and no row-level security beneath.

Schemas, middleware, authentication and the order of its work are the API's own. Its statements name
the organization themselves, and nothing of it is Tenantry's session layer.
"""

import uuid
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Query, Request, status
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session, sessionmaker

from assay.authentication import CurrentUser
from assay.config import Settings
from assay.exceptions import DuplicateTestSetError
from assay.middleware import BoundedBodies, ObservedRequests
from assay.models import TestSet
from assay.routes.problems import add_assay_problems, problems
from assay.schemas.base import PageQuery
from assay.schemas.test_sets import SetCreate, SetOut, SetPage
from assay.services.authentication import Authenticator, Principal
from assay.services.constraints import flush
from assay.services.pages import Page, read_page
from assay.services.tokens import find_owner
from tenantry import Settings as Databases
from tenantry.fastapi.problems import add_problem_handlers


class PlainAuthenticator(Authenticator):
    """Looks a token up by the same function; the use of it, noted once a minute, is left out."""

    def _identify(self, credential: str, digest: str) -> Principal | None:  # noqa: ARG002
        with self._sessions() as session:
            owner = find_owner(session, credential)
        return None if owner is None else Principal(owner.organization_id, owner.user_id)


def _session_of(request: Request, _user: CurrentUser) -> Iterator[Session]:
    """Yield a Session of no tenant; its transaction is committed before the response is sent."""
    with request.app.state.sessions.begin() as session:
        yield session


PlainSession = Annotated[Session, Depends(_session_of, scope="function")]

router = APIRouter(prefix="/test_sets")


@router.get("", response_model=SetPage, responses=problems())
def list_sets(
    db: PlainSession, user: CurrentUser, page: Annotated[PageQuery, Query()]
) -> Page[TestSet]:
    """List the sets of the user's organization."""
    query = select(TestSet).where(TestSet.organization_id == user.organization_id)
    return read_page(db, query, TestSet, size=page.size, after=page.after)


@router.post("", response_model=SetOut, status_code=status.HTTP_201_CREATED, responses=problems())
def create_set(db: PlainSession, user: CurrentUser, new: SetCreate) -> TestSet:
    """Create a set of the user's organization."""
    created = TestSet(
        id=uuid.uuid4(),
        organization_id=user.organization_id,
        name=new.name,
        description=new.description,
    )
    db.add(created)
    flush(db, {"uq_test_sets_organization_id_name": DuplicateTestSetError(new.name)})
    return created


def create_app() -> FastAPI:
    """Return the application, on the environment's database."""
    policy = Settings.from_environment().api
    database = Databases.from_environment().database_url
    if database is None:
        raise SystemExit("DATABASE_URL is not set: this is started by python -m bench.api")
    app = FastAPI(title="twin", docs_url=None, redoc_url=None)
    app.state.sessions = sessionmaker(create_engine(database))
    app.state.authenticator = PlainAuthenticator(policy, app.state.sessions)
    add_problem_handlers(app)
    add_assay_problems(app)
    app.add_middleware(BoundedBodies, largest=policy.largest_body, exceptions={})
    app.add_middleware(ObservedRequests, registry=CollectorRegistry())
    app.include_router(router)
    return app

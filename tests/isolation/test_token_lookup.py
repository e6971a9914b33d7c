"""The one look before a tenant is known tells whose a token is, and nothing else."""

import hashlib
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, sessionmaker

from assay.models import ApiToken, Base, Organization, User
from tenantry import create_tenant_engine, tenant_scope
from tenantry.testing import Database


@pytest.fixture
def engine(fresh_database: Database) -> Engine:
    """Return the application's engine on a database of the test's own."""
    return create_tenant_engine(
        fresh_database.app_url, mode="database", metadata=Base.metadata, pool_size=1
    )


def issue(engine: Engine, token: bytes, **columns: object) -> tuple[uuid.UUID, uuid.UUID]:
    """Give a new organization's user a token; return their ids."""
    organization_id = uuid.uuid4()
    with tenant_scope(organization_id, sessions=sessionmaker(engine)) as session:
        session.add(Organization(name="somebody"))
        session.flush()
        user = User(email="user@example.org", name="User")
        session.add(user)
        session.flush()
        session.add(
            ApiToken(
                user_id=user.id,
                name="token",
                prefix="asy",
                token_hash=hashlib.sha256(token).digest(),
                **columns,
            )
        )
        return organization_id, user.id


def look_up(engine: Engine, token: bytes) -> list[tuple[uuid.UUID, uuid.UUID]]:
    """Ask without a tenant, as the application does when a request comes in."""
    with Session(engine) as session:
        rows = session.execute(
            text("select organization_id, user_id from public.authenticate_token(:hash)"),
            {"hash": hashlib.sha256(token).digest()},
        )
        return [(row.organization_id, row.user_id) for row in rows]


def test_token_is_its_users(engine: Engine) -> None:
    """A token leads to its organization and user, among other organizations' tokens."""
    issue(engine, b"another")
    assert look_up(engine, b"known") == []
    owner = issue(engine, b"known")
    assert look_up(engine, b"known") == [owner]


@pytest.mark.parametrize(
    "columns",
    [
        {"expires_at": datetime.now(UTC) - timedelta(seconds=1)},
        {"revoked_at": datetime.now(UTC)},
    ],
    ids=["expired", "revoked"],
)
def test_token_that_ended_is_nobodys(engine: Engine, columns: dict[str, object]) -> None:
    """An expired or revoked token is as unknown as one that never was."""
    issue(engine, b"ended", **columns)
    assert look_up(engine, b"ended") == []


def test_hash_of_two_organizations_is_nobodys(engine: Engine) -> None:
    """Who learnt another organization's hash cannot have its requests filed under himself."""
    issue(engine, b"shared")
    issue(engine, b"shared")
    assert look_up(engine, b"shared") == []


def test_tokens_cannot_be_searched_by_range(engine: Engine, fresh_database: Database) -> None:
    """No index scan and no estimate narrows down another organization's hash."""
    issue(engine, b"secret")
    with Session(engine) as session:
        plan = session.execute(
            text(
                "explain (analyze, costs off, timing off, summary off) "
                "select from api_tokens where token_hash > decode('00', 'hex')"
            )
        )
        assert not any("ix_api_tokens_token_hash" in line for (line,) in plan)
    superuser = create_engine(fresh_database.superuser_url)
    with superuser.begin() as connection:
        connection.execute(text("analyze api_tokens"))
        assert (
            connection.scalar(text("select count(*) from pg_stats where attname = 'token_hash'"))
            == 0
        )
    superuser.dispose()


def test_authenticator_cannot_be_reached(engine: Engine) -> None:
    """The application cannot become the role that reads all tokens, nor replace its function."""
    for statement in (
        "set role tenantry_authenticator",
        "create function public.authenticate_token(text) returns int language sql return 1",
        "alter function public.authenticate_token(bytea) security invoker",
    ):
        with Session(engine) as session, pytest.raises(ProgrammingError):
            session.execute(text(statement))

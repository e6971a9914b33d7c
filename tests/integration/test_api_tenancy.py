"""`tenantry.fastapi` in an application that is not Assay, on a real server."""

import logging
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Annotated, get_args

import fastapi
import httpx2
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from tests.fixtures.api_foreign import Caller, TenantSession, caller, foreign_app
from tests.fixtures.worlds import A, Wall, World, cursor_of, names_of, new_world

from assay.models import Base, TestSet
from tenantry import ConfigurationError, IsolationNotEnforcedError, create_tenant_engine
from tenantry.fastapi import install_tenancy, probe_isolation
from tenantry.testing import Database, Server

FAIL_AT_COMMIT = """\
create function fail_at_commit() returns trigger language plpgsql as
  $$ begin raise unique_violation using message = 'internal detail'; end $$;
create constraint trigger fail_at_commit after insert on test_sets
  deferrable initially deferred for each row execute function fail_at_commit()"""


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the tests of this module read."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


@contextmanager
def client(engine: Engine) -> Iterator[TestClient]:
    """Yield a client of a served application; its errors are responses."""
    with TestClient(foreign_app(engine), raise_server_exceptions=False) as client:
        yield client


def engine_on(database: Database) -> Engine:
    """Return an engine on a database of the test's own."""
    return create_tenant_engine(database.app_url, mode="database", metadata=Base.metadata)


def of(tenant: object) -> dict[str, str]:
    """Return the headers of a tenant's request."""
    return {"X-Tenant": str(tenant)}


def sets_of(database: Database) -> int:
    """Count the sets as the superuser, who sees every tenant's."""
    with cursor_of(database.superuser_url) as cursor:
        cursor.execute("select count(*) from test_sets")
        count: int = cursor.fetchone()[0]
        return count


def add_organization(database: Database) -> None:
    """Create the organization of the tests that write."""
    with cursor_of(database.superuser_url) as cursor:
        cursor.execute("insert into organizations (id, name) values (%s, 'a')", [str(A)])


@pytest.mark.parametrize("wall", [Wall("database", "session"), Wall("filters", "session")], ids=str)
@pytest.mark.parametrize("route", ["/sync", "/async"])
def test_concurrent_requests_see_their_own_rows(world: World, wall: Wall, route: str) -> None:
    """Requests of three tenants at once, on two connections, each see their own rows alone."""
    with world.engine(wall, pool_size=2, pool_timeout=30) as engine, client(engine) as served:

        def read(number: int) -> None:
            letter = "abc"[number % 3]
            response = served.get(route, headers=of(letter))
            assert (response.status_code, response.json()) == (200, sorted(names_of(letter)))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(read, range(60)))


def test_request_is_committed_and_dispatched_before_its_response(fresh_database: Database) -> None:
    """When what waits for the commit runs, the row is there; when the answer comes, both are."""
    add_organization(fresh_database)
    seen: list[int] = []
    app = foreign_app(
        engine_on(fresh_database), on_commit=lambda: seen.append(sets_of(fresh_database))
    )
    with TestClient(app) as served:
        assert served.post("/sets/one", headers=of("a")).status_code == 200
        assert seen == [1]
        assert served.post("/sets/two/refused", headers=of("a")).status_code == 418
    assert seen == [1]


def refused_commit(database: Database) -> httpx2.Response:
    """Return the answer to a request whose commit fails."""
    with client(engine_on(database)) as served:
        return served.post("/sets/one", headers=of("a"))


def test_commit_that_fails_is_no_success(fresh_database: Database) -> None:
    """A commit that the server refuses is a 409; ended after the response, it would be a 200."""
    add_organization(fresh_database)
    with cursor_of(fresh_database.superuser_url) as cursor:
        cursor.execute(FAIL_AT_COMMIT)
    response = refused_commit(fresh_database)
    assert response.status_code == 409
    assert response.headers["content-type"] == "application/problem+json"
    assert "internal" not in response.text
    assert sets_of(fresh_database) == 0
    # The mutation: FastAPI's default, to end a dependency after the response.
    _, alias = get_args(TenantSession)
    late = foreign_app(engine_on(fresh_database))
    late_session = fastapi.Depends(alias.dependency)

    @late.post("/late")
    def create(db: Annotated[Session, late_session]) -> None:
        db.add(TestSet(name="one"))

    with TestClient(late, raise_server_exceptions=False) as served:
        assert served.post("/late", headers=of("a")).status_code == 200


def test_http_error_rolls_back(fresh_database: Database) -> None:
    """What a route wrote before it refused is not stored; its headers reach the client."""
    add_organization(fresh_database)
    with client(engine_on(fresh_database)) as served:
        response = served.post("/sets/one/refused", headers=of("a"))
    assert response.status_code == 418
    assert response.headers["x-reason"] == "tea"
    assert response.json() == {"title": "I'm a Teapot", "status": 418}
    assert sets_of(fresh_database) == 0


def test_session_is_closed_for_good(world: World) -> None:
    """A stream that reads after its request's end gets an error, not a transaction of its own."""
    with (
        world.engine() as engine,
        TestClient(foreign_app(engine)) as served,
        pytest.raises(InvalidRequestError, match="permanently closed"),
    ):
        served.get("/stream", headers=of("a"))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/sets/unknown", 404),
        ("GET", "/foreign-write", 404),
        ("POST", "/orphans", 409),
        ("GET", "/broken", 500),
        ("GET", "/nowhere", 404),
        ("DELETE", "/sync", 405),
        ("POST", "/numbers/secret", 422),
    ],
)
def test_errors_are_problems_without_the_inside(
    world: World, method: str, path: str, status: int
) -> None:
    """Errors of the library, of SQLAlchemy and of FastAPI say what to do, and no more."""
    with world.engine() as engine, client(engine) as served:
        response = served.request(method, path, headers=of("a"))
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["status"] == status
    for inside in ("secret", "psycopg2", "select", "test_set", str(A)):
        assert inside not in response.text


def test_duplicate_is_a_conflict(fresh_database: Database) -> None:
    """What a unique key refuses is a 409 that names neither table nor key."""
    add_organization(fresh_database)
    with client(engine_on(fresh_database)) as served:
        served.post("/sets/one", headers=of("a"))
        response = served.post("/sets/one", headers=of("a"))
    assert response.status_code == 409
    assert response.json()["detail"] == "There is such a thing already."


def test_organization_that_is_gone_is_forbidden(fresh_database: Database) -> None:
    """A principal whose organization does not exist is told so."""
    with client(engine_on(fresh_database)) as served:
        response = served.post("/sets/one", headers=of(uuid.uuid4()))
    assert response.status_code == 403


def test_full_pool_is_unavailable(world: World) -> None:
    """A request that gets no connection in time is a 503 that says when to come back."""
    with world.engine(pool_timeout=0.01) as engine, client(engine) as served, engine.connect():
        response = served.get("/sync", headers=of("a"))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"


def test_application_without_a_wall_does_not_start(fresh_database: Database) -> None:
    """In mode `database` nothing is served to a login that row-level security does not bind."""
    engine = create_tenant_engine(
        fresh_database.superuser_url, mode="database", metadata=Base.metadata
    )
    with pytest.raises(IsolationNotEnforcedError), TestClient(foreign_app(engine)):
        pass


def test_application_that_falls_back_warns(
    fresh_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """In mode `auto` it starts, with a warning before the first request."""
    engine = create_tenant_engine(fresh_database.superuser_url, metadata=Base.metadata)
    with caplog.at_level(logging.WARNING, "tenantry"), TestClient(foreign_app(engine)):
        assert "ROW-LEVEL SECURITY DOES NOT KEEP TENANTS APART" in caplog.text
        assert probe_isolation(sessionmaker(engine)).filtered


def test_shutdown_closes_the_connections(world: World) -> None:
    """When the application has stopped, none of its connections is left."""
    with world.engine(pool_size=2) as engine:
        with client(engine) as served:
            served.get("/sync", headers=of("a"))
            assert engine.pool.checkedin() == 1  # type: ignore[attr-defined]
        assert engine.pool.checkedin() == 0  # type: ignore[attr-defined]


def test_layer_is_installed_once_and_needed(world: World) -> None:
    """Twice is an error, and so is a Session of an application that has none."""
    with world.engine() as engine:
        app = foreign_app(engine)
        with pytest.raises(ConfigurationError, match="already"):
            install_tenancy(app, sessions=sessionmaker(engine))
        bare = TestClient(foreign_app(engine, install=False))
        with pytest.raises(ConfigurationError, match="install_tenancy"):
            bare.get("/sync", headers=of("a"))


def test_async_sessions_are_refused_at_once() -> None:
    """The error says that the integration is synchronous, and what to give it."""
    with pytest.raises(ConfigurationError, match=r"AsyncSessions, .* is synchronous: give"):
        install_tenancy(fastapi.FastAPI(), sessions=async_sessionmaker())  # type: ignore[arg-type]


def test_tenant_is_none_of_the_request(world: World) -> None:
    """An id that is none is an error of the application, and reaches no server."""
    with world.engine() as engine:
        app = foreign_app(engine)
        app.dependency_overrides[caller] = lambda: Caller("' or true --")  # type: ignore[arg-type]
        with TestClient(app, raise_server_exceptions=False) as served:
            assert served.get("/sync").status_code == 500

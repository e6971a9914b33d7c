"""Fifty clients of ten organizations at once, on five connections: nobody sees another's rows.

And nobody waits for ever, or for somebody who is slow.
"""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated, Any, get_args

import httpx2
import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials
from sqlalchemy import Engine, NullPool, event, select
from sqlalchemy.orm import Session, sessionmaker
from tests.fixtures.api_app import create_app
from tests.fixtures.api_storm import (
    POOL,
    Party,
    faults_of_pool,
    faults_of_rows,
    new_parties,
    served,
    storm,
)
from tests.fixtures.worlds import tear_down_wall

from assay import authentication
from assay.config import ApiPolicy, Settings
from assay.models import Base, TestSet
from tenantry import create_tenant_engine, set_tenant
from tenantry.database import TENANCY_OPTION
from tenantry.fastapi.turns import Turns
from tenantry.testing import Database

POLICY = replace(ApiPolicy(), failed_logins="100000/minute")


@dataclass(frozen=True, slots=True)
class Stage:
    """An application on a pool of a few connections, and the organizations that will ask it.

    Attributes:
        held: `/held` has a connection, and keeps it until `go_on` is set.
    """

    app: FastAPI
    engine: Engine
    database: Database
    parties: list[Party]
    held: threading.Event
    go_on: threading.Event

    def faults(self, requests: int) -> list[str]:
        """Return all that goes wrong while so many requests are served."""
        with served(self.app) as address:
            storm(address, self.parties, requests)
            seen = [fault for party in self.parties for fault in party.faults]
            return (
                seen
                + faults_of_pool(self.engine, patience=60 if not seen else 1)
                + faults_of_rows(self.database, self.parties)
            )


@contextmanager
def staged(database: Database, **options: Any) -> Iterator[Stage]:
    """Yield the API on this database, with an `async def` route that works in a Session too."""
    engine = create_tenant_engine(
        database.app_url,
        mode="database",
        metadata=Base.metadata,
        **{"pool_size": POOL, "max_overflow": 0, "pool_timeout": 60} | options,
    )
    app = create_app(Settings(api=POLICY), sessions=sessionmaker(engine))

    @app.get("/sets_in_turns")
    async def list_in_turns(db: authentication.TenantSession) -> list[str]:
        def names() -> list[str]:
            return sorted(db.scalars(select(TestSet.name)))

        first = await run_in_threadpool(names)
        return first + await run_in_threadpool(names)

    held, go_on = threading.Event(), threading.Event()

    @app.get("/held")
    def hold(db: authentication.TenantSession) -> bool:
        db.scalars(select(TestSet.name)).all()
        held.set()
        return go_on.wait(90)

    try:
        yield Stage(app, engine, database, new_parties(engine), held, go_on)
    finally:
        engine.dispose()


def test_two_thousand_requests_at_once_see_their_own_rows_alone(fresh_database: Database) -> None:
    """Sync and async, reading, writing, failing and hanging up: each gets its own and no other's.

    Every answer is the one that was due, what was answered as stored is stored and nothing else,
    and afterwards all connections are back, with no tenant on any.
    """
    with staged(fresh_database) as stage:
        assert stage.faults(2000) == []
        asked = sum((party.asked for party in stage.parties), Counter[int]())
        assert asked.total() == 2000
        assert asked.keys() == {0, 200, 201, 204, 401, 404, 409, 422}


def share_one_principal(stage: Stage, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Carry the principal in one object of the process, as a global variable does."""

    class Carrier:
        organization_id: object = None
        id: object = None

    carrier = Carrier()

    def careless(
        request: Request,
        bearer: Annotated[HTTPAuthorizationCredentials | None, Depends(authentication._bearer)],
    ) -> Carrier:
        found = authentication.require_current_user_or_token(request, bearer)
        carrier.organization_id, carrier.id = found.organization_id, found.id
        return carrier

    stage.app.dependency_overrides[authentication.require_current_user_or_token] = careless


def tear_down(stage: Stage, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Disable row security after the engine has found it in place."""
    stage.engine.connect().close()
    tear_down_wall(stage.database)


def keep_tenants(stage: Stage, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what clears the tenant when a connection returns."""
    layer = stage.engine.get_execution_options()[TENANCY_OPTION]
    event.remove(stage.engine, "reset", layer.on_reset)


def keep_failed_sessions(stage: Stage, _monkeypatch: pytest.MonkeyPatch) -> None:
    """Close a request's Session where the route returns, and forget it where it raises."""
    kept: list[Session] = []

    def forgetful(
        principal: authentication.CurrentUser,
    ) -> Iterator[Session]:
        session = Session(stage.engine)
        kept.append(session)
        set_tenant(session, principal.organization_id, principal.id)
        yield session
        session.commit()
        session.close()

    _, alias = get_args(authentication.TenantSession)
    stage.app.dependency_overrides[alias.dependency] = forgetful


MUTATIONS: dict[str, tuple[Callable[[Stage, pytest.MonkeyPatch], None], str]] = {
    "one principal for all": (share_one_principal, "foreign"),
    "no row security": (tear_down, "foreign"),
    "no reset": (keep_tenants, "left on a connection"),
    "failed sessions stay open": (keep_failed_sessions, "checked out"),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_fault_in_the_layer_is_seen(
    fresh_database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The mutations: with a part of the layer gone, the same clients see what is wrong."""
    mutate, expected = MUTATIONS[name]
    with staged(fresh_database, pool_timeout=1) as stage:
        mutate(stage, monkeypatch)
        faults = stage.faults(250)
        assert any(expected in fault for fault in faults), faults[:10]


def statuses(stage: Stage, clients: int) -> Counter[int]:
    """Return how many requests came to each status when so many clients read at once."""

    async def read(http: httpx2.AsyncClient, party: Party) -> int:
        return (await http.get("/test_sets", headers=party.member.headers)).status_code

    async def run(address: httpx2.URL) -> Counter[int]:
        limits = httpx2.Limits(max_connections=clients)
        async with httpx2.AsyncClient(base_url=address, timeout=120, limits=limits) as http:
            asked = (read(http, stage.parties[n % len(stage.parties)]) for n in range(2 * clients))
            return Counter(await asyncio.gather(*asked))

    with served(stage.app) as address:
        return asyncio.run(run(address))


def test_more_requests_than_threads_all_get_a_connection(
    fresh_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that hold a connection and wait for a thread do not meet those that do the reverse.

    The mutation: without turns both wait for one another, and most end in the pool's timeout.
    """
    with staged(fresh_database, pool_size=2) as stage:
        assert statuses(stage, 60) == {200: 120}
    monkeypatch.setattr(Turns, "of", classmethod(lambda cls, _engine: cls(None, 0)))
    with staged(fresh_database, pool_size=2, pool_timeout=1) as stage:
        assert statuses(stage, 60)[503] > 0


def test_turn_that_does_not_come_is_unavailable(fresh_database: Database) -> None:
    """A request waits as long as the pool would have it wait, and is then told to come back."""
    with (
        staged(fresh_database, pool_size=2, pool_timeout=0.5) as stage,
        served(stage.app) as address,
        httpx2.Client(base_url=address, timeout=90) as http,
        ThreadPoolExecutor(1) as pool,
    ):
        headers = stage.parties[0].member.headers
        assert http.get("/test_sets", headers=headers).status_code == 200
        held = pool.submit(http.get, "/held", headers=headers)
        assert stage.held.wait(90)
        answer = http.get("/test_sets", headers=headers)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        stage.go_on.set()
        assert held.result().status_code == 200


def test_slow_upload_holds_up_nobody(fresh_database: Database) -> None:
    """While a file is being received, the one turn that a pool of two has is free for others."""
    with (
        staged(fresh_database, pool_size=2, pool_timeout=5) as stage,
        served(stage.app) as address,
        httpx2.Client(base_url=address, timeout=90) as http,
    ):
        member = stage.parties[0].member
        sent, go_on = threading.Event(), threading.Event()

        def file() -> Iterator[bytes]:
            yield b"prompt,expected\n"
            yield b"a,b\n"
            sent.set()
            assert go_on.wait(90)
            yield b"c,d\n"

        def upload() -> httpx2.Response:
            headers = member.headers | {"Content-Type": "text/csv"}
            return http.post("/test_sets/import?name=slow", content=file(), headers=headers)

        with ThreadPoolExecutor(1) as pool:
            slow = pool.submit(upload)
            assert sent.wait(90)
            assert http.get("/test_sets", headers=member.headers).status_code == 200
            go_on.set()
            assert slow.result().json()["tests"] == 2


@pytest.mark.parametrize(
    ("options", "turns"),
    [
        ({}, 14),
        ({"pool_size": 2, "max_overflow": 0}, 1),
        ({"pool_size": 1, "max_overflow": 0}, 1),
        ({"pool_size": 0}, None),
        ({"max_overflow": -1}, None),
        ({"poolclass": NullPool}, None),
    ],
    ids=str,
)
def test_turns_are_one_less_than_connections(options: dict[str, Any], turns: int | None) -> None:
    """As many requests have a Session as the pool has connections but one; none waits without."""
    found = Turns.of(create_tenant_engine("postgresql+psycopg2://a@127.0.0.1/a", **options))
    assert (found.semaphore.value if found.semaphore else None) == turns

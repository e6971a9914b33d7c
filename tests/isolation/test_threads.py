"""Thirty threads on a pool of three, each with a tenant: none ever sees a foreign row."""

import random
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Engine, insert, select, update
from sqlalchemy.orm import Session
from tests.fixtures.worlds import WALLS, Wall, World, cursor_of, new_world, seen

from assay.models import TestSet
from tenantry import set_tenant
from tenantry.testing import Server

THREADS = 30
ROUNDS = 12


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return databases of the module's own."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


@pytest.fixture(params=WALLS, ids=str)
def engine(request: pytest.FixtureRequest, world: World) -> Iterator[Engine]:
    """Return a protected engine with three connections for thirty threads."""
    wall: Wall = request.param
    with world.engine(wall, pool_size=3, pool_timeout=60) as engine:
        yield engine


@pytest.fixture
def tenants(engine: Engine) -> dict[str, uuid.UUID]:
    """Return an organization for each thread, which has one set of its own name."""
    tenants = {f"t{number}-{uuid.uuid4()}": uuid.uuid4() for number in range(THREADS)}
    with cursor_of(engine.url) as cursor:
        for name, tenant in tenants.items():
            cursor.execute(
                "select set_config('app.current_organization', %s, false)", [str(tenant)]
            )
            cursor.execute(
                "insert into organizations (id, name) values (%s, %s)", [str(tenant), name]
            )
            cursor.execute("insert into test_sets (name) values (%s)", [name])
    return tenants


def use_session(engine: Engine, tenant: uuid.UUID, name: str, dice: random.Random) -> set[str]:
    """Read, write and read again with a Session; return what was seen."""
    found: set[str] = set()
    with Session(engine) as session:
        set_tenant(session, tenant)
        for _ in range(dice.randint(1, 3)):
            found |= seen(session)
            if dice.random() < 0.5:
                session.add(TestSet(name=f"{name} {dice.random()}"))
                session.flush()
                found |= {row.name for row in session.scalars(select(TestSet))}
                session.rollback()
            else:
                session.execute(update(TestSet).values(description=name))
                session.commit()
            found |= seen(session)
    return found


def use_connection(engine: Engine, tenant: uuid.UUID, name: str, dice: random.Random) -> set[str]:
    """Do the same with a Connection."""
    found: set[str] = set()
    with engine.connect() as connection:
        set_tenant(connection, tenant)
        for _ in range(dice.randint(1, 3)):
            found |= seen(connection)
            nested = connection.begin_nested()
            connection.execute(insert(TestSet).values(name=f"{name} {dice.random()}"))
            nested.rollback()
            found |= seen(connection)
            if dice.random() < 0.5:
                connection.commit()
            else:
                connection.rollback()
    return found


def use_nobody(engine: Engine, tenant: uuid.UUID, name: str, dice: random.Random) -> set[str]:
    """Read without a tenant: nothing is seen, so the name is what was expected."""
    with engine.connect() as connection:
        return seen(connection) or {name}


def test_no_thread_sees_a_foreign_row(engine: Engine, tenants: dict[str, uuid.UUID]) -> None:
    """In hundreds of units of work on three connections each thread sees its own row alone."""
    start = threading.Barrier(THREADS)

    def work(name: str, tenant: uuid.UUID, seed: int) -> set[str]:
        dice = random.Random(seed)  # noqa: S311 - decides an order
        start.wait(timeout=60)
        found: set[str] = set()
        for _ in range(ROUNDS):
            use = dice.choice((use_session, use_connection, use_nobody))
            found |= {seen.partition(" ")[0] for seen in use(engine, tenant, name, dice)}
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        futures = {
            name: pool.submit(work, name, tenant, seed)
            for seed, (name, tenant) in enumerate(tenants.items())
        }
        assert {name: future.result() for name, future in futures.items()} == {
            name: {name} for name in tenants
        }
    for name, tenant in tenants.items():
        with Session(engine) as session:
            set_tenant(session, tenant)
            assert session.scalars(select(TestSet.description)).all() in ([name], [""])

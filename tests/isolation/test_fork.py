"""Processes that are forked from one whose engine was used: each has connections of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from tests.fixtures.worlds import A, B, Wall, World, names_of, new_world

from tenantry.testing import Server

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")

WALLS = (Wall("database", "session"), Wall("database", "transaction"), Wall("filters", "session"))

# A process uses its engine, and perhaps keeps a transaction open; then its children, two for each
# tenant and all at once, read their rows and tell which backend served them.
PROGRAM = """
import json, os, signal, sys, uuid
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from assay.models import Base, TestSet
from tenantry import create_tenant_engine, database, set_tenant

told = json.loads(sys.argv[1])
engine = create_tenant_engine(
    os.environ["FORK_TEST_URL"], mode=told["mode"], scope=told["scope"], metadata=Base.metadata,
    pool_size=1, max_overflow=0, pool_timeout=60,
)

def read(session):
    names = sorted(session.scalars(select(TestSet.name)))
    return [session.scalar(select(func.pg_backend_pid())), names]

def read_as(tenant):
    with Session(engine) as session:
        set_tenant(session, uuid.UUID(tenant))
        return read(session)

if told["mutated"]:
    database._protected.clear()
mine = told["tenants"][0]
session = Session(engine)
set_tenant(session, uuid.UUID(mine))
before = read(session)
if not told["open"]:
    session.commit()
    session.close()
start, go = os.pipe()
children = []
for tenant in told["tenants"] * 2:
    results, result = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(told["seconds"])
        os.close(go)
        os.read(start, 1)
        try:
            answer = [read_as(tenant) for _ in range(3)][-1]
        except BaseException as error:
            answer = [0, [type(error).__name__]]
        os.write(result, json.dumps(answer).encode())
        os._exit(0)
    os.close(result)
    children.append((child, tenant, results))
os.close(go)
answers = []
for child, tenant, results in children:
    with os.fdopen(results) as answer:
        answers.append([tenant, *json.loads(answer.read() or '[0, ["silent"]]')])
    os.waitpid(child, 0)
after = None
if not told["mutated"]:
    after = read(session) if told["open"] else read_as(mine)
print(json.dumps({"before": before, "children": answers, "after": after}))
"""


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the processes read."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


def forked(world: World, wall: Wall, *, opened: bool, mutated: bool = False) -> dict[str, Any]:
    """Run the program, and return what its processes saw."""
    told: dict[str, Any] = {"mode": wall.mode, "scope": wall.scope, "tenants": [str(A), str(B)]}
    told |= {"open": opened, "mutated": mutated, "seconds": 2 if mutated else 90}
    url = world.url(wall).render_as_string(hide_password=False)
    finished = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(told)],
        env=os.environ | {"FORK_TEST_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    seen: dict[str, Any] = json.loads(finished.stdout)
    return seen


@pytest.mark.parametrize("opened", [False, True], ids=["idle", "in a transaction"])
@pytest.mark.parametrize("wall", WALLS, ids=str)
def test_forked_processes_see_their_own_tenants(world: World, wall: Wall, opened: bool) -> None:
    """Children see their own tenant's rows, by backends of their own; the parent's goes on."""
    seen = forked(world, wall, opened=opened)
    rows = {str(A): sorted(names_of("a")), str(B): sorted(names_of("b"))}
    assert [(tenant, names) for tenant, _, names in seen["children"]] == [
        (tenant, rows[tenant]) for tenant in (str(A), str(B)) * 2
    ]
    backends = {backend for _, backend, _ in seen["children"]}
    assert len(backends) == len(seen["children"])
    assert seen["before"][0] not in backends
    assert seen["after"] == seen["before"]


def test_without_the_handler_children_share_the_parents_backend(world: World) -> None:
    """Leaving the parent's connections to it is what holds: without it they talk across."""
    seen = forked(world, WALLS[0], opened=False, mutated=True)
    backends = {backend for _, backend, _ in seen["children"]}
    assert backends <= {seen["before"][0], 0}

"""What most tests of the layer are about: rows of three tenants, each wall, an engine behind it.

A module that needs another world, or fewer walls, has a fixture of that name of its own.
"""

import inspect
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine
from tests.fixtures.drivers import run, run_coroutine
from tests.fixtures.worlds import DRIVER_WALLS, WALLS, Wall, World, new_world

from tenantry.testing import Server


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the tests of this module read."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


@pytest.fixture(params=(*WALLS, *DRIVER_WALLS), ids=str)
def wall(request: pytest.FixtureRequest) -> Wall:
    """Return each wall in turn."""
    wall: Wall = request.param
    return wall


@pytest.fixture
def engine(world: World, wall: Wall) -> Iterator[Engine]:
    """Return a protected engine with one connection."""
    with world.engine(wall) as engine:
        yield engine


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a test as it needs it: a coroutine function, or one with the wall of a driver's."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if inspect.iscoroutinefunction(pyfuncitem.obj):
        run_coroutine(pyfuncitem.obj(**arguments))
        return True
    wall = pyfuncitem.funcargs.get("wall")
    if not isinstance(wall, Wall):
        return None
    run(wall.driver, pyfuncitem.obj, **arguments)
    return True

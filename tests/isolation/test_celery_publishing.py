"""A task runs for the tenant that published it, whatever way it was published."""

from collections.abc import Iterator

import pytest
from tests.fixtures.task_board import letters, new_label
from tests.fixtures.task_checks import check_way
from tests.fixtures.task_ways import WAYS, Way
from tests.fixtures.task_workers import POOLS, Bench, new_bench
from tests.fixtures.worlds import World

from tenantry.testing import Server


@pytest.fixture(scope="module", params=POOLS)
def bench(
    request: pytest.FixtureRequest,
    world: World,
    tenantry_server: Server,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bench]:
    """Return a worker of each pool in turn."""
    folder = tmp_path_factory.mktemp("worker")
    with new_bench(world, tenantry_server, folder, pool=request.param) as bench:
        yield bench


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_task_runs_for_its_publisher(bench: Bench, way: Way) -> None:
    """Published by two tenants in turn, each execution is told, and sees, its own tenant's rows."""
    check_way(bench, way)


def test_tenant_task_without_tenant_is_not_executed(bench: Bench) -> None:
    """Published for nobody, a tenant's task fails with MissingTenantError and does nothing."""
    label = new_label()
    result = bench.publish("-", bench.sig("look", label))
    bench.settle()
    assert bench.board.read(label) == []
    assert result.state == "FAILURE"
    assert "MissingTenantError" in bench.log_text()


@pytest.mark.parametrize("letter", ["-", "a"])
def test_tenant_free_task_sees_no_tenant(bench: Bench, letter: str) -> None:
    """A task that is marked so runs without a tenant, and what it is sees is no tenant's."""
    sights = bench.run("-", 1, lambda label: bench.sig("look_free", label))
    assert letters(sights) == {"-"}

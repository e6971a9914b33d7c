"""A worker enters each task without a tenant and leaves it without one, however it ended."""

from collections.abc import Iterator
from typing import Final

import pytest
from tests.fixtures.task_board import new_label
from tests.fixtures.task_checks import ENDINGS, Ending, check_ending
from tests.fixtures.task_workers import POOLS, Bench, Pool, new_bench
from tests.fixtures.worlds import World

from tenantry.testing import Server

TASKS: Final = 1_000


@pytest.fixture(scope="module", params=POOLS)
def pool(request: pytest.FixtureRequest) -> Pool:
    """Return each pool in turn."""
    pool: Pool = request.param
    return pool


@pytest.fixture(scope="module")
def bench(
    pool: Pool, world: World, tenantry_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Return a worker that executes everything in one thread, so that nothing can hide."""
    folder = tmp_path_factory.mktemp("worker")
    with new_bench(world, tenantry_server, folder, pool=pool, concurrency=1) as bench:
        yield bench


@pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)
def test_no_tenant_outlives_its_task(bench: Bench, pool: Pool, ending: Ending) -> None:
    """What follows on the same thread sees no tenant, and what it publishes is for nobody."""
    if pool not in ending.pools:
        pytest.skip(f"the {pool} pool has no such ending")
    for letter in "ab":
        check_ending(bench, letter, ending)


def test_retry_brings_its_own_tenant(bench: Bench) -> None:
    """Between a task's first execution and its retry the thread serves others, and nobody."""
    label = new_label()
    for letter in "ab-":
        task = "look_free" if letter == "-" else "retry"
        bench.publish(letter, bench.sig(task, f"{label}:{letter}"))
    found = {
        (sight.label.removeprefix(f"{label}:"), sight.letter)
        for sight in bench.board.wait(label, 5)
    }
    assert found == {("a:0", "a"), ("a:1", "a"), ("b:0", "b"), ("b:1", "b"), ("-", "-")}


def test_errback_of_a_killed_task_runs_for_its_tenant(bench: Bench, pool: Pool) -> None:
    """What the worker publishes for a task that it killed is for its tenant, and is sent once."""
    if pool != "prefork":
        pytest.skip(f"the {pool} pool kills nothing")
    for letter in "ab":
        label = new_label()
        signature = bench.sig("dawdle", label, time_limit=2)
        signature.link_error(bench.app.tasks["clean_up"].s(label=f"{label}:after"))
        bench.publish(letter, signature)
        bench.board.wait(label, 2)
        bench.settle()
        assert [sight.letter for sight in bench.board.read(label)] == [letter, letter]


def test_interleaved_tenants_never_mix(
    pool: Pool, world: World, tenantry_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A thousand tasks for two tenants in turn on four threads each see their own tenant's rows."""
    folder = tmp_path_factory.mktemp("worker")
    with new_bench(world, tenantry_server, folder, pool=pool, concurrency=4) as bench:
        label = new_label()
        for number in range(TASKS):
            letter = "ab"[number % 2]
            name = f"{label}:{letter}:{number}"
            bench.publish(letter, bench.sig("look_unbound", name, ignore_result=True))
        sights = bench.board.wait(label, TASKS, seconds=200)
        assert len({sight.label for sight in sights}) == len(sights) == TASKS
        assert {(sight.label.split(":")[1], sight.letter) for sight in sights} == {
            ("a", "a"),
            ("b", "b"),
        }

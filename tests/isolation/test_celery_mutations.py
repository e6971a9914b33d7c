"""Break the layer in a worker, and what the other tests check must not hold any more."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.fixtures.task_board import new_label
from tests.fixtures.task_checks import ENDINGS, check_ending, check_refused, check_way
from tests.fixtures.task_messages import Message
from tests.fixtures.task_mutations import MUTATIONS
from tests.fixtures.task_ways import WAYS
from tests.fixtures.task_workers import Bench, new_bench
from tests.fixtures.worlds import World

from tenantry.testing import Server


def check_forged_seal(bench: Bench) -> None:
    """Send what is sealed with another key."""
    label = new_label()
    check_refused(bench, Message("look", {"label": label}).seal("a", key="o" * 32), label)


def check_success(bench: Bench) -> None:
    """End a task well, and look at what follows."""
    check_ending(bench, "a", ENDINGS["success"])


def check_published_by_task(bench: Bench) -> None:
    """Have a task publish another one."""
    check_way(bench, WAYS["published-by-task"])


CHECKS: dict[str, Callable[[Bench], None]] = {
    "believe_every_seal": check_forged_seal,
    "keep_the_tenant": check_success,
    "publish_unsealed": check_published_by_task,
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_broken_worker_is_noticed(
    world: World,
    tenantry_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutation: str,
) -> None:
    """Without the seal's check, the release or the sealing in tasks, the check fails."""
    monkeypatch.setattr("tests.fixtures.task_board.PATIENCE", 5)
    with (
        new_bench(world, tenantry_server, tmp_path, concurrency=1, mutation=mutation) as bench,
        pytest.raises((AssertionError, TimeoutError)),
    ):
        CHECKS[mutation](bench)

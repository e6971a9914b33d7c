"""A child of the worker shares no connection with its parent, whenever it was forked."""

from pathlib import Path

from tests.fixtures.task_board import letters, new_label
from tests.fixtures.task_workers import new_bench
from tests.fixtures.worlds import new_world

from tenantry.testing import Server


def test_replaced_child_publishes_on_a_connection_of_its_own(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path
) -> None:
    """With each child replaced after two tasks, every task's own publications arrive.

    A child forked after the worker has connected to a PostgreSQL broker inherits that connection:
    if it publishes on it, both sides read each other's answers, and the worker hangs.
    """
    with (
        new_world(tenantry_server, tenantry_template) as world,
        new_bench(
            world, tenantry_server, tmp_path, pool="prefork", worker_max_tasks_per_child=2
        ) as bench,
    ):
        published = [("ab"[number % 2], new_label()) for number in range(12)]
        for letter, label in published:
            bench.publish(letter, bench.sig("publish", label))
        for letter, label in published:
            assert letters(bench.board.wait(label, 2)) == {letter}
        assert "PGRES" not in bench.log_text()

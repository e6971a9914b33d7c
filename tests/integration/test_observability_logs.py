"""What a worker logs says which task it is about, and for whom that runs."""

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from tests.fixtures.task_board import new_label, wait_until
from tests.fixtures.task_workers import POOLS, Pool, new_bench
from tests.fixtures.worlds import A, B, new_world

from tenantry import Tenant
from tenantry.celery import publishing_for
from tenantry.celery.logs import JsonFormatter, TaskContextFilter, add_task_context
from tenantry.testing import Server

EXPIRED = "2020-01-01T00:00:00+00:00"


@pytest.mark.parametrize("pool", POOLS)
def test_each_line_of_a_task_names_its_tenant(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path, pool: Pool
) -> None:
    """Success, failure, retry and revocation are logged with task, id, organization and user."""
    with (
        new_world(tenantry_server, tenantry_template) as world,
        new_bench(
            world, tenantry_server, tmp_path, pool=pool, environment={"PROBES_LOGS": "json"}
        ) as bench,
    ):
        expected = {}
        for tenant in (Tenant(A, B), Tenant(B)):
            with publishing_for(tenant):
                for name, options, text in (
                    ("look", {}, "succeeded in"),
                    ("fail", {}, "raised unexpected"),
                    ("retry", {}, "retry: Retry in"),
                    ("look", {"expires": EXPIRED}, "Discarding revoked task"),
                ):
                    result = bench.sig(name, new_label(), **options).apply_async()
                    expected[result.id] = (name, tenant, text)
        bench.settle()

        def are_logged() -> bool:
            lines = bench.log_text().splitlines()
            return all(
                any(task_id in line and text in line for line in lines)
                for task_id, (_, _, text) in expected.items()
            )

        wait_until(are_logged, 90, bench.log_text)
        lines = [json.loads(line) for line in bench.log_text().splitlines() if line[:1] == "{"]
    for task_id, (name, tenant, text) in expected.items():
        [line] = [line for line in lines if task_id in line["message"] and text in line["message"]]
        assert line["organization_id"] == str(tenant.organization_id)
        assert line["user_id"] == (None if tenant.user_id is None else str(tenant.user_id))
        assert (line["task_id"], line["task_name"]) == (task_id, name)
    [received] = {
        (line["task_name"], line["organization_id"])
        for line in lines
        if f"look_free[{line['task_id']}] received" in line["message"]
    }
    assert received == ("look_free", None)


def test_refusal_is_logged_for_nobody(
    tenantry_server: Server, tenantry_template: str, tmp_path: Path
) -> None:
    """The text form has the same fields; what a task without a tenant logs has none to name."""
    with (
        new_world(tenantry_server, tenantry_template) as world,
        new_bench(world, tenantry_server, tmp_path, environment={"PROBES_LOGS": "text"}) as bench,
    ):
        result = bench.publish("-", bench.sig("look", new_label()))
        bench.settle()
        pattern = rf"ERROR/MainProcess\] task=look id={result.id} organization=- user=- Task look"
        assert re.search(pattern, bench.log_text())


def make_record(message: str, *args: object, **extra: Any) -> logging.LogRecord:
    """Return a record that the filter has seen."""
    record = logging.LogRecord("name", logging.INFO, "path", 1, message, args, None)
    vars(record).update(extra)
    assert TaskContextFilter().filter(record)
    return record


def test_lines_cannot_be_forged() -> None:
    """A message with a line break stays one line of JSON, and cannot bring fields of its own."""
    record = make_record('%s\n{"organization_id": "other"}', "first", organization_id="other")
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert json.loads(line)["organization_id"] is None


def test_tenant_is_logged_outside_of_tasks() -> None:
    """What publishes for a tenant logs for it as well, without a task."""
    with publishing_for(Tenant(A, B)):
        record = make_record("launched")
    line = json.loads(JsonFormatter().format(record))
    assert (line["organization_id"], line["user_id"], line["task_id"]) == (str(A), str(B), None)


def test_handler_is_given_one_filter() -> None:
    """Set up twice, as Celery does for its two loggers, a handler still filters once."""
    handler = logging.NullHandler()
    add_task_context(handler)
    add_task_context(handler, style="json")
    assert len(handler.filters) == 1
    assert isinstance(handler.formatter, JsonFormatter)


def test_exception_is_part_of_the_line() -> None:
    """A traceback does not spread over lines that no tool can tell the task of."""
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018 - for its traceback
    record = make_record("failed")
    record.exc_info = (caught.type, caught.value, caught.tb)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    assert "ZeroDivisionError" in json.loads(line)["exception"]

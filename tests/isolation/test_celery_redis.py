"""On Redis as on PostgreSQL: each task for its tenant, and what is no message stops no worker."""

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from redis import Redis
from tests.conftest import RequireService
from tests.fixtures.redis_servers import new_redis, redis_program
from tests.fixtures.task_app import QUEUE
from tests.fixtures.task_board import letters, new_label, wait_until
from tests.fixtures.task_checks import check_refused
from tests.fixtures.task_messages import EMBEDDED, Message, publish
from tests.fixtures.task_workers import Bench, new_bench
from tests.fixtures.worlds import World
from tests.isolation.test_celery_poison import POISONS

from tenantry.testing import Server


@pytest.fixture(scope="module")
def url(require_service: RequireService) -> Iterator[str]:
    """Return the URL of a Redis of this module's own."""
    require_service(redis_program(), "redis-server is not installed (apt install redis-server)")
    with new_redis() as url:
        yield url


@pytest.fixture(scope="module")
def bench(
    world: World, url: str, tenantry_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Return a prefork worker whose broker and results are Redis."""
    folder = tmp_path_factory.mktemp("worker")
    with new_bench(
        world, tenantry_server, folder, pool="prefork", broker_url=url, result_backend=url
    ) as bench:
        yield bench


def raw(**parts: Any) -> bytes:
    """Return a message as kombu writes it, with other parts."""
    body = base64.b64encode(json.dumps([[], {}, EMBEDDED]).encode()).decode()
    whole = {
        "body": body,
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {"lang": "py", "task": "look", "id": str(uuid.uuid4())},
        "properties": {
            "delivery_tag": str(uuid.uuid4()),
            "body_encoding": "base64",
            "delivery_info": {"exchange": "", "routing_key": QUEUE},
        },
    }
    return json.dumps(whole | parts).encode()


ENVELOPES: Final[dict[str, bytes]] = {
    "not JSON": b"{[",
    "not text": b"\xff\xfe\x00",
    "nothing": b"",
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "nested deeply": b"[" * 100_000 + b"]" * 100_000,
    "properties are a list": raw(properties=[]),
    "no delivery tag": raw(properties={}),
    "body is no base64": raw(body="===="),
    "body is a number": raw(body=7),
    "unknown body encoding": raw(properties={"delivery_tag": "x", "body_encoding": "rot13"}),
    "headers are text": raw(headers="look"),
    "no headers": raw(headers=None),
    "content type is a number": raw(**{"content-type": 1}),
    "no delivery info": raw(properties={"delivery_tag": "y", "body_encoding": "base64"}),
}


def check_alive(bench: Bench) -> None:
    """Let the same worker execute a task for each of two tenants."""
    for letter in "ab":
        sights = bench.run(letter, 1, lambda label: bench.sig("look", label))
        assert letters(sights) == {letter}
    assert bench.process.poll() is None


@pytest.mark.parametrize("envelope", ENVELOPES.values(), ids=ENVELOPES)
def test_worker_survives_what_is_no_message(bench: Bench, url: str, envelope: bytes) -> None:
    """Whatever is pushed into the list of the queue, the tasks behind it are executed."""
    with Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client:
        client.lpush(QUEUE, envelope)
    check_alive(bench)


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_worker_survives_an_unreadable_message(
    bench: Bench, poison: tuple[str | bytes, dict[str, Any], str]
) -> None:
    """The bodies and headers that PostgreSQL's worker survives, Redis's survives too."""
    publish(bench, *poison)
    check_alive(bench)
    assert bench.board.read("protocol 1") == []


def test_forged_message_is_refused(bench: Bench) -> None:
    """Whoever can write to Redis still cannot be a tenant."""
    label = new_label()
    check_refused(bench, Message("look", {"label": label}).seal("a", key="o" * 32), label)


def test_tenants_do_not_mix(bench: Bench) -> None:
    """Two tenants' tasks in turn, 300 of each: every one sees its own tenant alone."""
    label = new_label()
    for _ in range(300):
        for letter in "ab":
            bench.publish(letter, bench.sig("look", f"{label}:{letter}"))
    sights = bench.board.wait(label, 600, seconds=120)
    assert {(sight.label[-1], sight.letter) for sight in sights} == {("a", "a"), ("b", "b")}


def test_worker_on_kombus_own_transport_does_not_survive(
    world: World, url: str, tenantry_server: Server, tmp_path: Path
) -> None:
    """The mutation: without the layer's transport one line that is no JSON ends the worker."""
    with (
        new_bench(
            world,
            tenantry_server,
            tmp_path,
            mutation="read_as_kombu_does",
            broker_url=url,
            result_backend=url,
            task_default_queue="mutated",
        ) as bench,
        Redis(unix_socket_path=url.removeprefix("redis+socket://")) as client,
    ):
        client.lpush("mutated", ENVELOPES["not JSON"])
        wait_until(lambda: bench.process.poll() is not None, 90, bench.log_text)
    assert "JSONDecodeError" in bench.log_text()

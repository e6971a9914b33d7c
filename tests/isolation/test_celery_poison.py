"""A message that cannot be read is dropped, and the worker goes on with the next one."""

import json
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.fixtures.task_board import letters
from tests.fixtures.task_messages import EMBEDDED, publish
from tests.fixtures.task_workers import POOLS, Bench, new_bench
from tests.fixtures.worlds import World

from tenantry.testing import Server

JSON: Final = "application/json"


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        """Take the file."""
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Return what unpickling calls."""
        return Path.touch, (self.path,)


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


def headers(task: str = "look") -> dict[str, Any]:
    """Return what makes a message a task's."""
    return {"lang": "py", "task": task, "id": str(uuid.uuid4())}


POISONS: Final[dict[str, tuple[str | bytes, dict[str, Any], str]]] = {
    "not JSON": ("{[", headers(), JSON),
    "not text": (b"\xff\xfe\x00", headers(), JSON),
    "nothing": ("", headers(), JSON),
    "a number": ("1", headers(), JSON),
    "null": ("null", headers(), JSON),
    "arguments alone": ("[[]]", headers(), JSON),
    "arguments are text": (json.dumps(["ab", "cd", "ef"]), headers(), JSON),
    "arguments swapped": (json.dumps([{}, [], EMBEDDED]), headers(), JSON),
    "unknown type": ('[[{"__type__": "x", "__value__": 1}], {}, {}]', headers(), JSON),
    "nested deeply": ("[" * 100_000 + "]" * 100_000, headers(), JSON),
    "huge": (json.dumps([["x" * 5_000_000], {}, EMBEDDED]), headers(), JSON),
    "unknown task": (json.dumps([[], {}, EMBEDDED]), headers("unknown"), JSON),
    "no id": (json.dumps([[], {}, EMBEDDED]), {"lang": "py", "task": "look"}, JSON),
    "no task": (json.dumps([[], {}, EMBEDDED]), {"lang": "py", "id": "x"}, JSON),
    "no headers": (json.dumps([[], {}, EMBEDDED]), {}, JSON),
    "id is a number": (json.dumps([[], {}, EMBEDDED]), headers() | {"id": 1}, JSON),
    "task is a list": (json.dumps([[], {}, EMBEDDED]), headers() | {"task": ["look"]}, JSON),
    "ETA is no time": (json.dumps([[], {}, EMBEDDED]), headers() | {"eta": "soon"}, JSON),
    "ETA is a number": (json.dumps([[], {}, EMBEDDED]), headers() | {"eta": 1}, JSON),
    "time limit is text": (json.dumps([[], {}, EMBEDDED]), headers() | {"timelimit": "x"}, JSON),
    "retries are a list": (json.dumps([[], {}, EMBEDDED]), headers() | {"retries": [1]}, JSON),
    "protocol 1": (
        json.dumps({"task": "look", "id": "x", "args": [], "kwargs": {"label": "protocol 1"}}),
        {},
        JSON,
    ),
    "unknown content type": ("x", headers(), "application/x-unknown"),
    "YAML": ("!!python/object/apply:os.getpid []", headers(), "application/x-yaml"),
}


@pytest.mark.parametrize("poison", POISONS.values(), ids=POISONS)
def test_worker_survives_an_unreadable_message(
    bench: Bench, poison: tuple[str | bytes, dict[str, Any], str]
) -> None:
    """Whatever is in the queue, the next task of a tenant is executed by the same worker."""
    body, message_headers, content_type = poison
    publish(bench, body, message_headers, content_type)
    for letter in "ab":
        sights = bench.run(letter, 1, lambda label: bench.sig("look", label))
        assert letters(sights) == {letter}
    assert bench.process.poll() is None
    assert bench.board.read("protocol 1") == []


def test_pickled_message_is_not_unpickled(bench: Bench, tmp_path: Path) -> None:
    """A message that would execute code when it is read is refused for its content type."""
    planted = tmp_path / "planted"
    body = pickle.dumps(([Planted(planted)], {}, EMBEDDED))
    publish(bench, body, headers(), "application/x-python-serialize")
    bench.settle()
    assert not planted.exists()
    pickle.loads(body)  # noqa: S301 - proves that it would have been noticed
    assert planted.exists()

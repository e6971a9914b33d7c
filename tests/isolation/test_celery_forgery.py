"""A message that does not prove whose it is gets nothing executed, in no tenant and in none."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from tests.fixtures.task_board import letters, new_label
from tests.fixtures.task_checks import check_refused
from tests.fixtures.task_messages import Message
from tests.fixtures.task_workers import Bench, new_bench
from tests.fixtures.worlds import TENANTS, World

from tenantry.testing import Server

Forge = Callable[[Bench, str], Message]


@pytest.fixture(scope="module")
def bench(
    world: World, tenantry_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Return a worker that executes one message after the other."""
    folder = tmp_path_factory.mktemp("worker")
    with new_bench(world, tenantry_server, folder, concurrency=1) as bench:
        yield bench


def look(label: str, task: str = "look") -> Message:
    """Return a message that is not sealed yet."""
    return Message(task, {"label": label})


def sealed(label: str, task: str = "look", letter: str = "a", **others: str) -> Message:
    """Return a message that is sealed, for another task or id if one is named."""
    return look(label, task).seal(letter, **others)


def altered(message: Message, **attributes: Any) -> Message:
    """Return the message with other content than was sealed."""
    for name, value in attributes.items():
        setattr(message, name, value)
    return message


def headed(message: Message, **entries: Any) -> Message:
    """Return the message with other headers than were sealed."""
    message.headers |= entries
    return message


def naming(message: Message, **entries: Any) -> Message:
    """Return the message with another tenant in its header than was sealed."""
    return headed(message, tenantry=message.headers["tenantry"] | entries)


def embedding(bench: Bench, message: Message, **entries: Any) -> Message:
    """Return the message with more beside its arguments than was sealed."""
    del bench
    return altered(message, embedded=message.embedded | entries)


def later(bench: Bench, label: str, task: str = "look") -> list[Any]:
    """Return what is to run after a message."""
    return [dict(bench.sig(task, f"{label}:later"))]


def freely(bench: Bench, message: Message, label: str) -> Message:
    """Return the message with everything that could run later set to a task for nobody."""
    free = later(bench, label, "look_free")
    return embedding(bench, message, callbacks=free, errbacks=free, chain=free)


OTHER: Final = str(TENANTS["b"])
EAGER: Final = {"is_eager": True, "called_directly": True}

FORGERIES: Final[dict[str, Forge]] = {
    "no header": lambda _, label: look(label),
    "no header, tenant-free": lambda _, label: look(label, "look_free"),
    "no header, plain task": lambda _, label: look(label, "look_plain"),
    "header is text": lambda _, label: headed(look(label), tenantry=OTHER),
    "header is a list": lambda _, label: headed(look(label), tenantry=[OTHER]),
    "no seal": lambda _, label: headed(look(label), tenantry={"organization_id": OTHER}),
    "seal is a number": lambda _, label: naming(sealed(label), seal=1),
    "seal beyond ASCII": lambda _, label: naming(sealed(label), seal="é" * 64),
    "organization is an object": lambda _, label: naming(sealed(label), organization_id={}),
    "other organization": lambda _, label: naming(sealed(label), organization_id=OTHER),
    "no organization": lambda _, label: naming(sealed(label, "look_free"), organization_id=None),
    "tenant for nobody's": lambda _, label: naming(
        sealed(label, letter="-"), organization_id=OTHER
    ),
    "other user": lambda _, label: naming(sealed(label), user_id=OTHER),
    "other arguments": lambda _, label: altered(sealed("x"), kwargs={"label": label}),
    "more arguments": lambda _, label: altered(sealed(label), args=[1]),
    "callbacks": lambda bench, label: embedding(
        bench, sealed(label), callbacks=later(bench, label)
    ),
    "errbacks": lambda bench, label: embedding(bench, sealed(label), errbacks=later(bench, label)),
    "chain": lambda bench, label: embedding(bench, sealed(label), chain=later(bench, label)),
    "chord": lambda bench, label: embedding(bench, sealed(label), chord=later(bench, label)[0]),
    "everything later for nobody": lambda bench, label: freely(bench, look(label), label),
    "later by a plain task": lambda bench, label: freely(bench, look(label, "look_plain"), label),
    "other id": lambda _, label: sealed(label, id="other"),
    "other id inside": lambda bench, label: embedding(bench, sealed(label, id="other"), id="other"),
    "other task": lambda _, label: look(label).seal("a", task="look_bound"),
    "other key": lambda _, label: look(label).seal("a", key="o" * 32),
    "header in headers": lambda _, label: headed(look(label), headers=sealed(label).headers),
    "header in the body": lambda bench, label: embedding(
        bench, look(label), tenantry={"organization_id": OTHER}
    ),
    "says it is eager": lambda _, label: headed(look(label, "look_free"), **EAGER),
    "says so in the body": lambda bench, label: embedding(bench, look(label, "look_free"), **EAGER),
    "plain and eager": lambda bench, label: embedding(bench, look(label, "look_plain"), **EAGER),
    "brings its execution": lambda bench, label: embedding(
        bench, look(label, "look_free"), tenantry_execution={"tenant": OTHER}
    ),
    "by Celery's own task": lambda bench, label: Message(
        "celery.map", {"task": dict(bench.sig("look_free", label)), "it": [label]}
    ),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_forged_message_is_refused(bench: Bench, forge: Forge) -> None:
    """Nothing of it is executed, its failure is stored, and the log says why."""
    label = new_label()
    check_refused(bench, forge(bench, label), label)


def test_genuine_message_is_executed(bench: Bench) -> None:
    """What the forgeries are made from is executed, so it is for the forgery that they fail."""
    label = new_label()
    message = sealed(label)
    message.embedded["callbacks"] = later(bench, label)
    message.seal("a").send(bench)
    assert letters(bench.board.wait(label, 2)) == {"a"}


def test_replayed_message_stays_in_its_tenant(bench: Bench) -> None:
    """Sent again as it was, a message does the same for the same tenant; more it cannot do."""
    label = new_label()
    message = sealed(label)
    message.send(bench)
    message.send(bench)
    sights = bench.board.wait(label, 2)
    assert [sight.letter for sight in sights] == ["a", "a"]

"""The digest of a task's arguments is that of what its message carries."""

import json
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils.json import dumps

from tenantry.celery.records import digest_arguments

KEYS = st.one_of(st.text(), st.integers(), st.booleans(), st.none())
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.uuids()),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner)),
    max_leaves=8,
)


@given(VALUES)
def test_any_argument_of_a_message_has_a_digest(value: Any) -> None:
    """Keys of different types included, which cannot be compared with each other."""
    digest = digest_arguments([value], {"given": value})
    assert len(digest) == 64
    carried = json.loads(dumps(value))  # type: ignore[no-untyped-call]
    assert digest_arguments([carried], {"given": carried}) == digest


def test_order_of_keys_makes_no_difference() -> None:
    """Equal arguments have equal digests."""
    first = {1: "a", "b": {"x": 1, 2: uuid.UUID(int=3)}}
    second = {"b": {2: uuid.UUID(int=3), "x": 1}, 1: "a"}
    assert digest_arguments([first], {}) == digest_arguments([second], {})
    assert digest_arguments([first], {}) != digest_arguments([], {"first": first})


def test_argument_that_is_no_json_is_refused() -> None:
    """What no message can carry has no digest."""
    with pytest.raises(TypeError):
        digest_arguments([object()], {})

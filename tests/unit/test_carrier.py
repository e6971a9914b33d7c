"""The seal of a message: what survives JSON, and what is refused."""

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.utils import json

from tenantry import ConfigurationError, TenancyConfig, Tenant
from tenantry.celery.carrier import Carrier, is_recorded
from tenantry.exceptions import RefusedMessageError

KEY: Final = "k" * 32
TENANT: Final = Tenant(uuid.UUID(int=1), uuid.UUID(int=2))
BODY: Final = (["one"], {"two": 2}, {"callbacks": None, "errbacks": None, "chain": None})

Header = dict[str, str | None]
Body = tuple[Any, Any, Any]

_zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.uuids()
    | st.decimals()
    | st.datetimes(timezones=st.none() | _zones)
    | st.dates()
    | st.times()
)
_keys = st.text() | st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none()
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        # Two keys that JSON writes alike are one key to who reads it.
        | st.lists(st.tuples(_keys, inner), unique_by=lambda pair: json.dumps({pair[0]: 0})).map(
            dict
        )
        | st.dictionaries(st.text(), inner)
    ),
    max_leaves=12,
)


def sent(body: Any) -> Any:
    """Return a body as a worker reads it."""
    return json.loads(json.dumps(body))


@given(st.lists(_values), st.dictionaries(st.text(), _values), st.none() | st.lists(_values))
def test_seal_outlives_json(args: list[Any], kwargs: dict[str, Any], chain: object) -> None:
    """Whatever a task can be given, the seal is still right when it comes out of the message."""
    carrier = Carrier(KEY)
    body = (args, kwargs, {"callbacks": chain, "errbacks": None, "chain": chain, "chord": None})
    header = carrier.seal(TENANT, "id", "task", body)
    assert carrier.open(sent(header), "id", "task", sent(body)) == TENANT


@pytest.mark.parametrize(
    "value",
    [
        {10: "a", 9: "b", "c": "d"},
        (1, (2, [3.5, float("inf")])),
        datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=UTC),
        [date(2024, 2, 29), time(1, 2), Decimal("1.10"), uuid.UUID(int=7), None, "\u2028é😀\x00"],
        {"__type__": "decimal", "__value__": "1.00"},
    ],
)
def test_seal_outlives_json_that_changes_its_look(value: object) -> None:
    """Keys that become text, tuples that become lists and typed values keep the seal valid."""
    carrier = Carrier(KEY)
    body: Body = ([value], {"value": value}, {})
    assert carrier.open(carrier.seal(TENANT, "id", "task", body), "id", "task", sent(body))


def test_absence_of_a_tenant_is_sealed_too() -> None:
    """A message for nobody opens as such, and cannot be made into one for somebody."""
    carrier = Carrier(KEY)
    header = carrier.seal(None, "id", "task", BODY)
    assert carrier.open(header, "id", "task", BODY) is None
    with pytest.raises(RefusedMessageError):
        carrier.open(header | {"organization_id": str(uuid.UUID(int=1))}, "id", "task", BODY)


def test_knowledge_of_a_record_is_sealed_too() -> None:
    """Nobody can take from a message that its task has a record, nor say so of another."""
    carrier = Carrier(KEY)
    plain = carrier.seal(TENANT, "id", "task", BODY)
    recorded = carrier.seal(TENANT, "id", "task", BODY, recorded=True)
    assert carrier.open(sent(recorded), "id", "task", BODY) == TENANT
    assert (is_recorded(plain), is_recorded(recorded)) == (False, True)
    for header in (plain | {"recorded": True}, recorded | {"recorded": False}):
        with pytest.raises(RefusedMessageError):
            carrier.open(header, "id", "task", BODY)


_CHANGED_HEADERS: Final[dict[str, Callable[[Header], object]]] = {
    "missing": lambda _: None,
    "text": lambda _: "tenantry",
    "list": lambda header: list(header.items()),
    "empty": lambda _: {},
    "no seal": lambda header: header | {"seal": None},
    "number as seal": lambda header: header | {"seal": 1},
    "bytes as seal": lambda header: header | {"seal": b"seal"},
    "seal beyond ASCII": lambda header: header | {"seal": "\udce9é" * 32},
    "seal of another key": lambda _: Carrier("o" * 32).seal(TENANT, "id", "task", BODY),
    "seal of another id": lambda _: Carrier(KEY).seal(TENANT, "other", "task", BODY),
    "seal of another task": lambda _: Carrier(KEY).seal(TENANT, "id", "other", BODY),
    "other organization": lambda header: header | {"organization_id": str(uuid.UUID(int=3))},
    "organization in capitals": lambda header: (
        header | {"organization_id": f"{{{header['organization_id']}}}"}
    ),
    "nested organization": lambda header: header | {"organization_id": {"id": "x"}},
    "no organization": lambda header: header | {"organization_id": None},
    "other user": lambda header: header | {"user_id": str(uuid.UUID(int=3))},
    "no user": lambda header: header | {"user_id": None},
}


@pytest.mark.parametrize("change", _CHANGED_HEADERS.values(), ids=_CHANGED_HEADERS)
def test_changed_header_is_refused(change: Callable[[Header], object]) -> None:
    """A header that differs in anything from what was sealed is refused, whatever its type."""
    carrier = Carrier(KEY)
    with pytest.raises(RefusedMessageError, match="message id for 'task'"):
        carrier.open(change(carrier.seal(TENANT, "id", "task", BODY)), "id", "task", BODY)


_EMBEDDED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_CHANGED_BODIES: Final[dict[str, Body]] = {
    "other argument": (["two"], {"two": 2}, _EMBEDDED),
    "more arguments": (["one", "one"], {"two": 2}, _EMBEDDED),
    "argument of another type": (["one"], {"two": "2"}, _EMBEDDED),
    "argument under another name": (["one"], {"three": 2}, _EMBEDDED),
    "moved argument": ([], {"one": "one", "two": 2}, _EMBEDDED),
} | {
    name: (["one"], {"two": 2}, _EMBEDDED | {name: [{"task": "other", "args": []}]})
    for name in _EMBEDDED
}


@pytest.mark.parametrize("body", _CHANGED_BODIES.values(), ids=_CHANGED_BODIES)
def test_changed_body_is_refused(body: Body) -> None:
    """Neither arguments nor what runs afterwards can be changed in a sealed message."""
    carrier = Carrier(KEY)
    header = carrier.seal(TENANT, "id", "task", (["one"], {"two": 2}, _EMBEDDED))
    assert carrier.open(header, "id", "task", (("one",), {"two": 2}, _EMBEDDED)) == TENANT
    with pytest.raises(RefusedMessageError, match="seal is wrong"):
        carrier.open(header, "id", "task", body)


def test_what_runs_afterwards_cannot_change_places() -> None:
    """A callback that was sealed as such cannot be made an errback."""
    carrier = Carrier(KEY)
    later = [{"task": "other"}]
    header = carrier.seal(TENANT, "id", "task", ([], {}, {"callbacks": later}))
    with pytest.raises(RefusedMessageError):
        carrier.open(header, "id", "task", ([], {}, {"errbacks": later}))


def test_tenant_of_another_type_is_refused() -> None:
    """A key shared with an application whose ids are of another type seals nothing for this one."""
    header = Carrier(KEY).seal(TENANT, "id", "task", BODY)
    numbers = Carrier(KEY, config=TenancyConfig(id_type="bigint"))
    with pytest.raises(RefusedMessageError, match="malformed tenant"):
        numbers.open(header, "id", "task", BODY)


def test_short_key_is_refused() -> None:
    """A key that could be guessed is not taken, and the message says how to make one."""
    with pytest.raises(ConfigurationError, match="TENANTRY_TASK_KEY needs 32 or more"):
        Carrier("k" * 31)

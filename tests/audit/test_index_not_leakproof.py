import pytest
from tests.audit.conftest import Audited
from tests.audit.plans import planned
from tests.audit.walls import walled

COLUMNS = (
    "kind mood default 'sad', amount numeric default 1, email text default 'x',"
    " payload jsonb default '{}', tags text[] default '{}', number bigint default 1,"
    " at timestamptz default now(), flag boolean default true"
)
FILL = (
    "insert into events (organization_id) select '00000000-0000-0000-0000-00000000000a'"
    " from generate_series(1, 12000)",
    "create index on events (organization_id)",
    "analyze events",
)


def large(audited: Audited, index: str) -> None:
    audited.broken_by(
        "create type mood as enum ('sad', 'glad')", *walled("events", COLUMNS), *FILL, index
    )


@pytest.mark.parametrize(
    "columns",
    [
        "(organization_id, kind)",
        "(organization_id, amount)",
        "(organization_id, lower(email))",
        "(organization_id, number, (payload ->> 'k'))",
        "(organization_id, tags)",
        "using gin (payload)",
        "using gin (tags)",
    ],
)
def test_index_not_leakproof(audited: Audited, columns: str) -> None:
    """Types and functions of which none may be asked before the tenant rule."""
    large(audited, f"create index \"Of 'it'\" on events {columns}")
    audited.finds("index_not_leakproof", "\"Of 'it'\" on public.events")
    audited.mended("drop index \"Of 'it'\"")


@pytest.mark.parametrize(
    "columns",
    [
        "(organization_id, number, at, email, flag)",
        "(organization_id, email text_pattern_ops)",
        "(organization_id, (number is null))",
        "(organization_id) include (amount, kind)",
        "(organization_id) where amount > 0",
    ],
)
def test_what_is_leakproof_or_not_searched_is_not_found(audited: Audited, columns: str) -> None:
    """Types whose operators tell nothing, what an index only carries, and its condition."""
    large(audited, f"create index i on events {columns}")
    assert audited.audit().findings == ()


def test_index_is_not_searched_by_such_a_column(audited: Audited) -> None:
    """The cost: an equal index of a leakproof type is searched by both columns."""
    large(audited, "create index leaky on events (organization_id, amount)")
    audited.broken_by("drop index events_organization_id_idx")
    assert not [
        condition
        for condition in planned(audited, "select from events where amount = 7", "Index Cond")
        if "amount" in condition
    ]
    audited.broken_by("drop index leaky", "create index tight on events (organization_id, number)")
    (condition,) = planned(audited, "select from events where number = 7", "Index Cond")
    assert "number" in condition


def test_small_table_is_not_found(audited: Audited) -> None:
    """It is read as a whole anyway."""
    audited.broken_by(
        *walled("events", "amount numeric"), "create index i on events (organization_id, amount)"
    )
    assert audited.audit().findings == ()

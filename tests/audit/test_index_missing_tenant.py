import pytest
from tests.audit.conftest import Audited
from tests.audit.plans import planned
from tests.audit.walls import walled

FILL = (
    "insert into {0} (organization_id) select gen_random_uuid() from generate_series(1, {1})",
    "analyze {0}",
)


@pytest.mark.parametrize("name", ["public.events", 'public."Select ""me"" \'now\'\n;"'])
def test_index_missing_tenant(audited: Audited, name: str) -> None:
    """A large table that each tenant reads as a whole; an index of some of its rows is none."""
    audited.broken_by(
        *walled(name),
        *(statement.format(name, 12000) for statement in FILL),
        f"create index on {name} (organization_id) where id is null",
    )
    found = audited.finds("index_missing_tenant", name)
    assert "about 12000 rows" in found.problem
    audited.mended()


def test_each_query_reads_all_tenants_rows(audited: Audited) -> None:
    """The cost: a sequential scan, where the statement of the finding makes it an index's."""
    audited.broken_by(*walled("events"), *(statement.format("events", 12000) for statement in FILL))
    assert planned(audited, "select from events", "Node Type") == ["Seq Scan"]
    audited.finds("index_missing_tenant", "public.events")
    audited.mended()
    assert "Seq Scan" not in planned(audited, "select from events", "Node Type")


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ("id uuid", 500),
        ("id uuid default gen_random_uuid(), primary key (organization_id, id)", 12000),
    ],
)
def test_small_table_and_one_with_an_index_are_not_found(
    audited: Audited, columns: str, rows: int
) -> None:
    """A small table is read as a whole anyway; a key led by the tenant is an index."""
    audited.broken_by(
        *walled("events", columns), *(statement.format("events", rows) for statement in FILL)
    )
    assert audited.audit().findings == ()

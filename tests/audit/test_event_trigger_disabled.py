import re
from pathlib import Path

import pytest
from tests.audit.conftest import Audited

from tenantry.testing.administration import connected

PAGE = Path(__file__).parents[2] / "docs" / "checks" / "event_trigger_disabled.md"
SEED = (
    "insert into organizations (name) values ('Acme')",
    "insert into test_sets (organization_id, name) select id, 'theirs' from organizations",
    "alter default privileges grant select on tables to tenantry_app",
)
COPIES = (
    "create table \"Copy '1'\" (like test_sets including all);"
    " insert into \"Copy '1'\" select * from test_sets",
    "create table \"Copy '1'\" as select * from test_sets",
    "select * into \"Copy '1'\" from test_sets",
)


def guard() -> str:
    """Return the guard as its page has it."""
    (script,) = re.findall(r"^```sql\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return str(script)


def shown(audited: Audited) -> list[tuple[str]]:
    """Return what the application reads from the copy of a tenant table."""
    with connected(audited.database.app_url) as cursor:
        cursor.execute("select name from \"Copy '1'\"")
        return cursor.fetchall()


@pytest.mark.parametrize("state", ["disable", "enable replica"])
def test_event_trigger_disabled(audited: Audited, state: str) -> None:
    """Disabled, or for replicas alone; enabled in any way that fires is no fault."""
    audited.broken_by(guard(), f"alter event trigger tenancy_guard {state}")
    audited.finds("event_trigger_disabled", "tenancy_guard")
    audited.mended()
    audited.broken_by("alter event trigger tenancy_guard enable always")
    assert audited.audit().findings == ()


@pytest.mark.parametrize("copy", COPIES, ids=["like", "as", "into"])
def test_guard_of_the_page_closes_new_tables(audited: Audited, copy: str) -> None:
    """Without a policy nobody sees a row; disabled, the copy shows those of all tenants."""
    audited.broken_by(*SEED, guard(), copy)
    assert shown(audited) == []
    audited.broken_by("drop table \"Copy '1'\"", "alter event trigger tenancy_guard disable", copy)
    assert shown(audited) == [("theirs",)]


def test_guard_leaves_other_tables_alone(audited: Audited) -> None:
    """A table without the tenant column, a temporary one and a view are as they were made."""
    audited.broken_by(
        guard(),
        "create table countries (name text)",
        "create temp table mine (organization_id uuid)",
        "create view all_sets with (security_invoker = true) as select * from test_sets",
    )
    with connected(audited.database.app_url) as cursor:
        cursor.execute(
            "select relname from pg_catalog.pg_class where relname = 'countries' and relrowsecurity"
        )
        assert cursor.fetchall() == []
    assert audited.audit().findings == ()

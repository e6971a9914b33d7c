import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import TWO_TENANTS, answer

HOSTILE = 'public."Select ""me"" \'now\'\n;"'


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("disable row level security", "row security is off: the policies"),
        ("no force row level security", "row security is not forced"),
    ],
)
def test_row_security_off(audited: Audited, statement: str, problem: str) -> None:
    """Neither policies without ENABLE nor a table that is not forced passes."""
    audited.broken_by(f"alter table test_sets {statement}")
    found = audited.finds("row_security_off", "public.test_sets")
    assert found.problem.startswith(problem)
    audited.mended()


def test_root_table_without_row_security_is_found(audited: Audited) -> None:
    """The table of tenants is a tenant table, by its id."""
    audited.broken_by("alter table organizations disable row level security")
    audited.finds("row_security_off", "public.organizations")
    audited.mended()


def test_new_table_with_a_hostile_name_is_mended_as_a_whole(audited: Audited) -> None:
    """A copy of a tenant table has its column and none of its policies; the script walls it off."""
    audited.broken_by(
        f"create table {HOSTILE} (like test_sets including all)",
        f"grant select, insert, update, delete on {HOSTILE} to tenantry_app",
        f"alter table {HOSTILE} owner to tenantry_owner",
    )
    audited.finds(
        "row_security_off",
        HOSTILE,
        besides=(("wall_missing", HOSTILE), ("permissive_missing", HOSTILE)),
    )
    audited.mended()


def test_partition_is_found_once_the_application_can_name_it(audited: Audited) -> None:
    """A partition without a grant is reached through its parent alone; with one, past its wall."""
    audited.broken_by(
        "create table events (organization_id uuid not null) partition by hash (organization_id)",
        "create table events_0 partition of events for values with (modulus 1, remainder 0)",
        "alter table events owner to tenantry_owner",
        "alter table events_0 owner to tenantry_owner",
        "grant select on events to tenantry_app",
    )
    events = "public.events"
    audited.finds(
        "row_security_off",
        events,
        besides=(("wall_missing", events), ("permissive_missing", events)),
    )
    audited.mended()
    audited.broken_by("grant select on events_0 to tenantry_app")
    events_0 = "public.events_0"
    audited.finds(
        "row_security_off",
        events_0,
        besides=(("wall_missing", events_0), ("permissive_missing", events_0)),
    )
    audited.mended()


def test_table_in_a_schema_of_the_server_is_found(audited: Audited) -> None:
    """A superuser may put it there, and everybody may use that schema."""
    audited.broken_by(
        *TWO_TENANTS,
        "alter table test_sets set schema information_schema",
        "alter table information_schema.test_sets disable row level security",
    )
    names = answer(audited, "select name from information_schema.test_sets")
    assert sorted(names) == [("mine",), ("theirs",)]
    audited.finds("row_security_off", "information_schema.test_sets")
    audited.mended()

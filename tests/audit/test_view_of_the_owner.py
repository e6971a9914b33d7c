import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import TWO_TENANTS, answer

NAMES = (
    *TWO_TENANTS,
    'create view "Names ""of""" as select name from test_sets',
    'alter view "Names ""of""" owner to tenantry_owner',
    'grant select on "Names ""of""" to tenantry_app',
)
VIEW = 'public."Names ""of"""'


def test_view_of_the_owner(audited: Audited) -> None:
    """FORCE holds the owner, and the wall is its wall too: one tenant's rows, and a note."""
    audited.broken_by(*NAMES)
    assert answer(audited, f"select name from {VIEW}") == [("mine",)]
    found = audited.finds("view_of_the_owner", VIEW)
    assert "tenantry_owner, whom FORCE and the wall hold" in found.problem
    audited.mended()


@pytest.mark.parametrize(
    "statement",
    [
        "alter table test_sets no force row level security",
        "drop policy test_sets_tenant_wall on test_sets",
    ],
)
def test_owner_whom_nothing_holds_is_another_finding(audited: Audited, statement: str) -> None:
    """As soon as FORCE or the wall is gone it is an error."""
    audited.broken_by(*NAMES, statement)
    found = {(each.check, each.object) for each in audited.audit().findings}
    assert ("view_without_security_invoker", VIEW) in found
    assert ("view_of_the_owner", VIEW) not in found


def test_view_of_another_view_is_held_by_that_ones_owner(audited: Audited) -> None:
    """A superuser's view within shows all tenants, whoever owns the one without."""
    audited.broken_by(
        *TWO_TENANTS,
        "create schema hidden",
        "create view hidden.names as select name from test_sets",
        "grant usage on schema hidden to tenantry_owner",
        "grant select on hidden.names to tenantry_owner",
        "create view names as select name from hidden.names",
        "alter view names owner to tenantry_owner",
        "grant select on names to tenantry_app",
    )
    assert sorted(answer(audited, "select name from names")) == [("mine",), ("theirs",)]
    audited.finds("view_without_security_invoker", "public.names")
    audited.broken_by("alter view hidden.names set (security_invoker = true)")
    assert answer(audited, "select name from names") == [("mine",)]
    audited.finds("view_of_the_owner", "public.names")
    audited.broken_by("revoke select on names from tenantry_app")
    assert audited.audit().findings == ()

import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import THEIRS, TWO_TENANTS, answer

SETTING = "nullif(current_setting('app.current_organization', true), '')::uuid"
BESIDES = (
    ("wall_missing", "public.test_sets"),
    ("policy_expression", "test_sets_tenant on public.test_sets"),
)
POLICY = (
    "drop policy test_sets_tenant_wall on test_sets",
    "drop policy test_sets_tenant on test_sets",
    "create policy test_sets_tenant on test_sets using (organization_id = tenant())",
)
CREATE = "create function tenant() returns uuid language sql stable"


@pytest.mark.parametrize("path", ["", "set search_path = public"])
def test_policy_function_unpinned(audited: Audited, path: str) -> None:
    """A function of the same name, first in the caller's search_path, chose the tenant."""
    audited.broken_by(f"{CREATE} {path} as $$ select {SETTING} $$", *POLICY)
    costly = (("policy_function_costly", "public.tenant()"),) if path else ()
    found = audited.finds("policy_function_unpinned", "public.tenant()", besides=BESIDES + costly)
    assert "test_sets_tenant on public.test_sets" in found.problem
    audited.mended("drop function tenant()")


def test_function_behind_an_operator_is_found(audited: Audited) -> None:
    """An operator of one's own calls one; a policy does not show it."""
    audited.broken_by(
        "create function same(uuid, uuid) returns boolean language sql stable as 'select $1 = $2'",
        "create operator === (leftarg = uuid, rightarg = uuid, function = same)",
        *POLICY[:2],
        f"create policy test_sets_tenant on test_sets using (organization_id === {SETTING})",
    )
    audited.finds("policy_function_unpinned", "public.same(uuid,uuid)", besides=BESIDES)
    audited.mended("drop function same(uuid, uuid) cascade")


@pytest.mark.parametrize(
    "body",
    [
        f"return {SETTING}",
        f"set search_path = pg_catalog, pg_temp as $$ select {SETTING} $$",
    ],
)
def test_pinned_function_passes(audited: Audited, body: str) -> None:
    """By its search_path, or because its names were found when it was created."""
    audited.broken_by(f"{CREATE} {body}", *POLICY)
    found = {(each.check, each.object) for each in audited.audit().findings}
    # What a SET clause costs is a note.
    assert found - {("policy_function_costly", "public.tenant()")} == set(BESIDES)


def test_function_of_the_same_name_chooses_the_tenant(audited: Audited) -> None:
    """The harm: with CREATE on one schema, the application is whom it says."""
    audited.broken_by(
        *TWO_TENANTS,
        "create function stated() returns text language sql stable as "
        "$$ select current_setting('app.current_organization', true) $$",
        f"{CREATE} as $$ select nullif(stated(), '')::uuid $$",
        *POLICY,
        "create schema mine",
        "grant usage, create on schema mine to tenantry_app",
    )
    assert answer(audited, "select name from test_sets") == [("mine",)]
    planted = (
        f"create function mine.stated() returns text language sql as $$ select '{THEIRS}' $$",
        "set search_path = mine, public",
        "select name from public.test_sets",
    )
    assert answer(audited, *planted) == [("theirs",)]

import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import THEIRS, TWO_TENANTS, answer

SETTING = "nullif(current_setting('app.current_organization', true), '')::uuid"
WITHOUT_WALL = (
    ("wall_missing", "public.test_sets"),
    ("policy_expression", "test_sets_tenant on public.test_sets"),
)


def policy(call: str) -> tuple[str, ...]:
    return (
        "drop policy test_sets_tenant_wall on test_sets",
        "drop policy test_sets_tenant on test_sets",
        f"create policy test_sets_tenant on test_sets using (organization_id = {call})",
    )


@pytest.mark.parametrize(
    ("signature", "body", "call"),
    [
        ("tenant()", f"language sql immutable return {SETTING}", "tenant()"),
        (
            "tenant()",
            f"language plpgsql immutable set search_path = pg_catalog, pg_temp "
            f"as $$ begin return {SETTING}; end $$",
            "(select tenant())",
        ),
        (
            "tenant(text)",
            "language sql immutable return nullif(current_setting($1, true), '')::uuid",
            "tenant('app.current_organization')",
        ),
    ],
)
def test_policy_function_immutable(audited: Audited, signature: str, body: str, call: str) -> None:
    """A prepared statement showed the second tenant the rows of the first."""
    audited.broken_by(
        f"create function {signature} returns uuid {body}",
        *policy(call),
    )
    found = audited.finds("policy_function_immutable", f"public.{signature}", besides=WITHOUT_WALL)
    assert "test_sets_tenant on public.test_sets" in found.problem
    audited.mended()


def test_pure_functions_and_contained_policies_pass(audited: Audited) -> None:
    """IMMUTABLE is right where nothing but the arguments is read, and harmless behind the wall."""
    audited.broken_by(
        "create function same(uuid) returns uuid language sql immutable return $1",
        f"create function tenant() returns uuid language sql immutable return {SETTING}",
        "create policy extra on test_sets using (organization_id = tenant())",
    )
    audited.finds("policy_contained", "extra on public.test_sets")
    audited.broken_by("drop policy extra on test_sets", *policy(f"same({SETTING})"))
    assert "policy_function_immutable" not in {each.check for each in audited.audit().findings}


def test_plan_serves_the_previous_tenants_rows(audited: Audited) -> None:
    """The harm, and that it ends with the mark."""
    audited.broken_by(
        *TWO_TENANTS,
        f"create function tenant() returns uuid language sql immutable return {SETTING}",
        *policy("tenant()"),
    )
    look = (
        "set plan_cache_mode = force_generic_plan",
        "prepare names as select name from test_sets",
        "execute names",
        f"select set_config('app.current_organization', '{THEIRS}', false)",
        "execute names",
    )
    assert answer(audited, *look) == [("mine",)]
    audited.broken_by("alter function tenant() stable")
    assert answer(audited, *look) == [("theirs",)]

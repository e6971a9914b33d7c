import pytest
from tests.audit.conftest import Audited

RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
WALL = "test_sets_tenant_wall on public.test_sets"


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (f"using ({RULE}) with check (true)", "with check is true, all rows"),
        ("using (true)", "using is true, all rows"),
        (f"using ({RULE} or organization_id is null)", "which can be true without a tenant"),
        (
            "using (organization_id = coalesce(nullif(current_setting("
            "'app.current_organization', true), '')::uuid, organization_id))",
            "which can be true without a tenant",
        ),
        (
            "using (organization_id = current_setting('app.current_organization', true)::uuid)",
            "using is (organization_id = (current_setting(",
        ),
        (f"using ({RULE.replace('app.current_organization', 'app.tenant')})", "'app.tenant'"),
        (f"using ({RULE.replace('organization_id =', 'id =')})", "using is (id = "),
        (
            f"using ({RULE} or current_user = 'tenantry_authenticator'::name) with check ({RULE})",
            "CURRENT_USER = 'tenantry_authenticator'",
        ),
    ],
)
def test_policy_expression(audited: Audited, policy: str, problem: str) -> None:
    """Whatever a wall compares but the tenant column with the setting is found, by its text."""
    audited.broken_by(
        "drop policy test_sets_tenant_wall on test_sets",
        f"create policy test_sets_tenant_wall on test_sets as restrictive {policy}",
    )
    assert problem in audited.finds("policy_expression", WALL).problem
    audited.mended()


@pytest.mark.parametrize(
    "policy",
    [
        f"using ({RULE})",
        f"using ({RULE.replace('= ', '= (select ', 1)})) with check ({RULE})",
    ],
    ids=["check_left_out", "sub_select"],
)
def test_equivalent_walls_pass(audited: Audited, policy: str) -> None:
    """A check that is left out is the USING; a sub-select makes the setting an init plan."""
    audited.broken_by(
        "drop policy test_sets_tenant_wall on test_sets",
        f"create policy test_sets_tenant_wall on test_sets as restrictive {policy}",
    )
    assert audited.audit().findings == ()


def test_function_planted_under_a_familiar_name_is_found(audited: Audited) -> None:
    """The text of the policy is the same in the author's search_path; the function is not."""
    audited.broken_by(
        "create schema planted",
        "create function planted.current_setting(text, boolean) returns text stable return 'x'",
        "drop policy test_sets_tenant_wall on test_sets",
        "set search_path = planted, pg_catalog, public; "
        f"create policy test_sets_tenant_wall on test_sets as restrictive using ({RULE})",
    )
    assert "planted.current_setting" in audited.finds("policy_expression", WALL).problem
    audited.mended()


def test_exception_of_the_token_table_keeps_its_check(audited: Audited) -> None:
    """The authenticator's exception is one for reading; the wall's check is the rule."""
    audited.broken_by("alter policy api_tokens_tenant_wall on api_tokens with check (true)")
    audited.finds("policy_expression", "api_tokens_tenant_wall on public.api_tokens")
    audited.mended()


def test_second_permissive_policy_without_a_wall_is_found(audited: Audited) -> None:
    """Permissive policies are OR-ed: without a wall the second one opens the table."""
    audited.broken_by(
        "drop policy test_sets_tenant_wall on test_sets",
        "create policy shared on test_sets for select using (true)",
    )
    audited.finds(
        "policy_expression",
        "shared on public.test_sets",
        besides=(("wall_missing", "public.test_sets"),),
    )
    audited.mended()

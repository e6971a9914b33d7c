import pytest
from tests.audit.conftest import Audited

RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (None, "no restrictive policy (wall)"),
        (f"to tenantry_app using ({RULE})", "test_sets_tenant_wall is scoped to tenantry_app"),
        (f"for select using ({RULE})", "test_sets_tenant_wall is for select alone"),
    ],
    ids=["none", "scoped", "select"],
)
def test_wall_missing(audited: Audited, policy: str | None, problem: str) -> None:
    """A wall is a wall for all commands and all roles; the statement finds a name that is free."""
    audited.broken_by("drop policy test_sets_tenant_wall on test_sets")
    if policy is not None:
        audited.broken_by(
            f"create policy test_sets_tenant_wall on test_sets as restrictive {policy}"
        )
    assert problem in audited.finds("wall_missing", "public.test_sets").problem
    audited.mended()


def test_mended_wall_of_the_token_table_lets_tokens_be_looked_up(audited: Audited) -> None:
    """The statement keeps the authenticator's exception, which the wall had."""
    audited.broken_by("drop policy api_tokens_tenant_wall on api_tokens")
    found = audited.finds("wall_missing", "public.api_tokens")
    assert "or current_user = 'tenantry_authenticator'::name" in (found.statement or "")
    audited.mended()

import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize("attribute", ["superuser", "bypassrls", "createrole", "replication"])
def test_runtime_role_privileged(audited: Audited, make_role: MakeRole, attribute: str) -> None:
    """A role that acts as the application has none of the four attributes."""
    role = make_role(attribute)
    audited.configure(app_role=role)
    found = audited.finds("runtime_role_privileged", role)
    assert attribute in found.problem.lower()
    audited.mended()


def test_login_that_is_a_member_is_judged_too(audited: Audited, make_role: MakeRole) -> None:
    """The application's role is clean, and a login that has it is a superuser."""
    role, login = make_role(), make_role("login superuser")
    audited.broken_by(f"grant {role} to {login}")
    audited.configure(app_role=role)
    audited.finds("runtime_role_privileged", login)
    audited.mended()


def test_role_that_can_become_a_privileged_one_is_found(
    audited: Audited, make_role: MakeRole
) -> None:
    """BYPASSRLS is not inherited, and is one SET ROLE away."""
    role, between, strong = make_role(), make_role(), make_role("bypassrls")
    audited.configure(app_role=role)
    audited.broken_by(f"grant {strong} to {role}")
    assert f"can become {strong}" in audited.finds("runtime_role_privileged", role).problem
    audited.mended()
    audited.broken_by(f"grant {strong} to {between}", f"grant {between} to {role}")
    assert audited.finds("runtime_role_privileged", role).statement is None
    audited.mended(f"revoke {between} from {role}")

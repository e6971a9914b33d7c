import pytest
from tests.audit.conftest import OF_THE_SERVER, Audited, MakeRole
from tests.fixtures.psql import AUDIT, run_psql


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


@pytest.mark.parametrize("attribute", ["bypassrls", "createrole"])
def test_application_is_not_locked_out_of_its_role(
    audited: Audited, make_role: MakeRole, attribute: str
) -> None:
    """What its role has too much is taken from the role; its logins keep their membership."""
    role = make_role(attribute)
    login = make_role(f"login in role {role}")
    audited.configure(app_role=role)
    found = audited.finds("runtime_role_privileged", role)
    assert (found.statement or "").startswith(f"alter role {role} no")
    audited.mended()
    assert login in {each.role for each in audited.audit().roles}


def test_role_that_nobody_can_use_is_told(audited: Audited, make_role: MakeRole) -> None:
    """Without a login nobody is judged but the role: the verdict says so."""
    role = make_role()
    audited.configure(app_role=role)
    assert audited.audit().verdict.endswith("; no login acts as the application")
    done = run_psql(audited.database.app_url, AUDIT, f"app_role={role}", f"skip={OF_THE_SERVER}")
    assert "; no login acts as the application" in done.stdout
    audited.broken_by(f"alter role {role} login")
    assert "no login" not in audited.audit().verdict

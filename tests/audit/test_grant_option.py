import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize("privilege", ["select", "insert, update", "select (name), update (id)"])
@pytest.mark.parametrize("grantee", ["tenantry_app", "tenantry_login"])
def test_grant_option(audited: Audited, privilege: str, grantee: str) -> None:
    """On the table or its columns, for the role of the application or a login of its own."""
    audited.broken_by(f"grant {privilege} on test_sets to {grantee} with grant option")
    found = audited.finds("grant_option", "public.test_sets")
    assert found.problem.startswith(f"{grantee} may grant ")
    audited.mended()


def test_what_was_granted_on_is_taken_back(audited: Audited, make_role: MakeRole) -> None:
    """The harm: one statement of the application lets another role in; the mending ends that."""
    stranger = make_role()
    audited.broken_by("grant select on test_sets to tenantry_app with grant option")
    with connected(audited.database.app_url) as cursor:
        cursor.execute(f"grant select on test_sets to {stranger}")
    audited.finds("grant_option", "public.test_sets")
    audited.mended()
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute("select has_table_privilege(%s, 'test_sets', 'select')", [stranger])
        assert cursor.fetchone() == (False,)


def test_owner_and_roles_out_of_reach_are_not_found(audited: Audited, make_role: MakeRole) -> None:
    """An owner grants; the maintenance role is trusted with all tenants."""
    audited.broken_by(
        f"grant select on test_sets to {make_role()}, tenantry_maintenance with grant option"
    )
    assert audited.audit().findings == ()


def test_schema_that_the_application_may_open(audited: Audited) -> None:
    """USAGE with the grant option lets any login in."""
    audited.broken_by("grant usage on schema public to tenantry_app with grant option")
    assert audited.finds("grant_option", "public").object_type == "schema"
    audited.mended()


def test_role_that_the_application_administers(audited: Audited, make_role: MakeRole) -> None:
    """Its login lets any other into the application's role."""
    role, login, stranger = make_role(), make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {role} to {login} with admin option",
        f"set role {login}",
        f"grant {role} to {stranger}",
        "reset role",
    )
    found = audited.finds("grant_option", role)
    assert found.problem == f"{login} acts as the application and may grant it to any role"
    audited.mended()

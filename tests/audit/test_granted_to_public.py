import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize("privilege", ["select", "insert", "update", "delete", "select (name)"])
def test_granted_to_public(audited: Audited, privilege: str) -> None:
    """Each of the four, on the table or on a column of it."""
    audited.broken_by(f"grant {privilege} on test_sets to public")
    # PUBLIC is the authenticator too, of which this is found once.
    audited.finds("granted_to_public", "public.test_sets")
    audited.mended()


def test_login_without_a_grant_is_any_tenant(audited: Audited, make_role: MakeRole) -> None:
    """The harm: the wall asks for the setting, and everybody may set it."""
    stranger = make_role()
    audited.broken_by(
        "insert into organizations (name) values ('Acme')",
        "insert into test_sets (organization_id, name) select id, 'theirs' from organizations",
        "grant select on test_sets, organizations to public",
    )
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute(
            "select set_config('app.current_organization', id::text, false) from organizations"
        )
        cursor.execute(f"set role {stranger}")
        cursor.execute("select name from public.test_sets")
        assert cursor.fetchall() == [("theirs",)]
    audited.finds("granted_to_public", "public.organizations", "public.test_sets")
    audited.mended()


def test_shared_tables_are_not_found(audited: Audited) -> None:
    """Reference data is for everybody to read."""
    audited.broken_by("create table countries (name text)", "grant select on countries to public")
    assert audited.audit().findings == ()

import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected

OWNERS = {"database": "tenantry_migrator", "schema": "pg_database_owner"}


def test_table_owner_reachable(audited: Audited) -> None:
    """An owner can switch row security off, forced or not."""
    audited.broken_by("alter table test_sets owner to tenantry_app")
    found = audited.finds("table_owner_reachable", "public.test_sets")
    assert found.problem == (
        "tenantry_app acts as the application and owns it: it can switch row security off"
    )
    audited.mended(
        "alter table test_sets owner to tenantry_owner",
        "grant select, insert, update, delete on test_sets to tenantry_app",
    )


def test_owner_that_a_membership_leads_to_is_found(audited: Audited, make_role: MakeRole) -> None:
    """By way of a third role, and without INHERIT: SET ROLE is all it takes."""
    role, between = make_role("noinherit"), make_role()
    audited.broken_by(
        f"grant {between} to {role}",
        f"grant tenantry_owner to {between}",
    )
    audited.configure(app_role=role)
    findings = audited.audit().findings
    assert {each.check for each in findings} == {
        "table_owner_reachable",
        # The owner hands over functions to the authenticator, and so may become it.
        "authenticator_unconfined",
    }
    audited.broken_by(f"revoke tenantry_owner from {between}")
    assert audited.audit().findings == ()


def test_owner_of_the_database_is_found(audited: Audited, make_role: MakeRole) -> None:
    """It owns the schema public as well, as a member of pg_database_owner."""
    name = audited.database.name
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"alter database {name} owner to {role}")
    audited.finds("table_owner_reachable", name)
    audited.mended(f"alter database {name} owner to tenantry_migrator")


@pytest.mark.parametrize("kind", ["database", "schema"])
@pytest.mark.parametrize("attributes", ["", "noinherit"])
def test_owner_of_what_holds_the_tables_drops_them(
    audited: Audited, make_role: MakeRole, kind: str, attributes: str
) -> None:
    """Neither owns a table, and a membership leads to it."""
    role, keeper = make_role(attributes), make_role()
    name = {"database": audited.database.name, "schema": "public"}[kind]
    audited.configure(app_role=role)
    audited.broken_by(f"alter {kind} {name} owner to {keeper}", f"grant {keeper} to {role}")
    found = audited.finds("table_owner_reachable", name)
    assert (found.object_type, f"its owner {keeper}: it can drop" in found.problem) == (kind, True)
    audited.broken_by(f"set role {role}; set role {keeper}; drop table test_results; reset role")
    audited.mended()
    audited.broken_by(f"alter {kind} {name} owner to {OWNERS[kind]}")


def test_membership_in_the_owner_is_one_finding(audited: Audited, make_role: MakeRole) -> None:
    """However many tables the owner has; its statement ends it, whoever granted it."""
    role, granter = make_role("login in role tenantry_app"), make_role()
    with connected(audited.database.owner_url) as cursor:
        cursor.execute("select current_setting('server_version_num')::integer >= 160000")
        newer = cursor.fetchone() == (True,)
    audited.broken_by(
        f"grant tenantry_owner to {granter} with admin option",
        f"set role {granter}; grant tenantry_owner to {role}",
    )
    findings = [each for each in audited.audit().findings if each.check == "table_owner_reachable"]
    audited.broken_by(findings[0].statement or f"revoke tenantry_owner from {role}")
    assert [(each.object_type, each.object) for each in findings] == [("role", role)]
    assert "more tenant tables" in findings[0].problem
    assert (f"granted by {granter}" in (findings[0].statement or "")) == newer
    assert audited.audit().findings == ()

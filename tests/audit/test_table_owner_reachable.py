from tests.audit.conftest import Audited, MakeRole


def test_table_owner_reachable(audited: Audited) -> None:
    """An owner can switch row security off, forced or not."""
    audited.broken_by("alter table test_sets owner to tenantry_app")
    found = {each.problem for each in audited.audit().findings}
    assert found == {
        "tenantry_app acts as the application and owns it: it can switch row security off",
        "tenantry_login acts as the application and can become its owner tenantry_app: it can "
        "switch row security off",
    }
    audited.finds("table_owner_reachable", "public.test_sets", "public.test_sets")
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

import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize(
    "predefined",
    [
        "pg_monitor",
        "pg_signal_backend",
        "pg_write_all_data",
        "pg_stat_scan_tables",
        "pg_checkpoint",
    ],
)
def test_predefined_role_wide(audited: Audited, make_role: MakeRole, predefined: str) -> None:
    """Roles for monitoring, administration and bulk work."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant {predefined} to {role}")
    findings = [
        (each.check, each.object)
        for each in audited.audit().findings
        if f"member of {predefined}," in each.problem
    ]
    assert findings == [("predefined_role_wide", role)]
    # What it is a member of in its turn, as pg_monitor is, ends with it.
    audited.broken_by(f"revoke {predefined} from {role}")
    assert audited.audit().findings == ()


def test_finding_is_mended_by_its_statement(audited: Audited, make_role: MakeRole) -> None:
    """One membership, one finding."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant pg_write_all_data to {role}")
    audited.finds("predefined_role_wide", role)
    audited.mended()


def test_role_for_monitoring_is_one_finding(audited: Audited, make_role: MakeRole) -> None:
    """Of the application's role, not of its logins, nor of what the other is a member of."""
    role = make_role()
    make_role(f"login in role {role}")
    audited.configure(app_role=role)
    audited.broken_by(f"grant pg_monitor to {role}")
    findings = [each for each in audited.audit().findings if "pg_" in (each.statement or "")]
    assert [(each.check, each.object) for each in findings] == [("predefined_role_wide", role)]
    audited.broken_by(findings[0].statement or "")
    assert audited.audit().findings == ()


def test_shared_table_is_written_without_a_grant(audited: Audited, make_role: MakeRole) -> None:
    """The harm: a row that all tenants read is changed by a role without a privilege on it."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        "create table plans (price integer)",
        "insert into plans values (1)",
        f"grant pg_write_all_data to {role}",
    )
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute(f"set role {role}")
        cursor.execute("update plans set price = 0")
        assert cursor.rowcount == 1
    audited.finds("predefined_role_wide", role)
    audited.mended()


def test_other_roles_memberships_are_not_found(audited: Audited, make_role: MakeRole) -> None:
    """A monitoring login is as it should be."""
    audited.configure(app_role=make_role())
    audited.broken_by(f"grant pg_monitor to {make_role()}")
    assert audited.audit().findings == ()

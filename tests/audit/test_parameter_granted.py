import psycopg2
import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize(
    ("privilege", "setting"),
    [
        ("set", "session_replication_role"),
        ("set", "lo_compat_privileges"),
        ("alter system", "work_mem"),
        ("alter system", 'app."current_user"'),
        ("set, alter system", "session_preload_libraries"),
    ],
)
def test_parameter_granted(
    audited: Audited, make_role: MakeRole, privilege: str, setting: str
) -> None:
    """ALTER SYSTEM on any setting, SET on those that switch checks off or load code."""
    role, login = make_role(), make_role()
    audited.broken_by(
        f"grant {role} to {login}", f"grant {privilege} on parameter {setting} to {login}"
    )
    audited.configure(app_role=role)
    found = audited.finds("parameter_granted", setting.replace('"', ""))
    assert login in found.problem
    audited.mended()


def test_foreign_keys_are_switched_off(audited: Audited, make_role: MakeRole) -> None:
    """The harm: a row that refers to none, which a foreign key refuses otherwise."""
    role = make_role()
    insert = (
        "insert into public.test_configurations (organization_id, name, test_set_id, endpoint_id)"
        " select id, 'x', id, id from public.organizations"
    )
    tenant = "select set_config('app.current_organization', id::text, false) from organizations"
    audited.configure(app_role=role)
    audited.broken_by(
        "insert into organizations (name) values ('Acme')",
        f"grant tenantry_app to {role}",
    )
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute(tenant)
        cursor.execute(f"set role {role}")
        with pytest.raises(psycopg2.errors.ForeignKeyViolation):
            cursor.execute(insert)
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute("set session_replication_role = replica")
        audited.broken_by(f"grant set on parameter session_replication_role to {role}")
        cursor.execute("set session_replication_role = replica")
        cursor.execute(insert)
        assert cursor.rowcount == 1
    audited.finds("parameter_granted", "session_replication_role")
    audited.mended()


def test_harmless_settings_are_not_found(audited: Audited, make_role: MakeRole) -> None:
    """SET on what only measures or logs, and whatever a role out of reach has."""
    role, stranger = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant set on parameter track_io_timing to {role}",
        f"grant set, alter system on parameter session_replication_role to {stranger}",
    )
    assert audited.audit().findings == ()

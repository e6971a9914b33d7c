import psycopg2
import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


def test_setting_undefined(audited: Audited) -> None:
    """SHOW of a setting that nobody has defined is an error, and aborts the transaction."""
    name = audited.database.name
    audited.broken_by(f'alter database {name} reset app."current_user"')
    with connected(audited.database.app_url) as cursor:
        cursor.execute("show app.current_organization")
        cursor.execute("begin")
        with pytest.raises(psycopg2.errors.UndefinedObject):
            cursor.execute('show app."current_user"')
        with pytest.raises(psycopg2.errors.InFailedSqlTransaction):
            cursor.execute("select 1")
    audited.finds("setting_undefined", "app.current_user")
    audited.mended()


def test_another_projects_settings_are_found(audited: Audited, make_role: MakeRole) -> None:
    """Whatever they are called; defined for the application's role is defined."""
    role = make_role()
    audited.configure(app_role=role, organization_setting="my.tenant", user_setting="my.Select")
    audited.broken_by(f"alter role {role} set my.tenant = ''")
    findings = [each for each in audited.audit().findings if each.check == "setting_undefined"]
    assert [each.object for each in findings] == ["my.Select"]
    audited.broken_by(*(each.statement or "" for each in findings))
    assert "setting_undefined" not in {each.check for each in audited.audit().findings}

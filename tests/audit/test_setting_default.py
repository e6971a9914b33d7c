import pytest
from psycopg2 import sql
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


def test_setting_default(audited: Audited) -> None:
    """A tenant that is stored for the database is everybody's who forgets to set one."""
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute(
            sql.SQL("alter database {} set app.current_organization = 'somebody'").format(
                sql.Identifier(audited.database.name)
            )
        )
    found = audited.finds("setting_default", "app.current_organization")
    assert "the default for this database is 'somebody'" in found.problem
    audited.mended()


@pytest.mark.parametrize("setting", ["app.current_organization", 'app."current_user"'])
def test_default_stored_for_a_role_is_found(
    audited: Audited, make_role: MakeRole, setting: str
) -> None:
    """Each login of the application's is looked at; a keyword in the name is quoted."""
    role, login = make_role(), make_role("login")
    audited.broken_by(f"grant {role} to {login}", f"alter role {login} set {setting} = 'x'")
    audited.configure(app_role=role)
    found = audited.finds("setting_default", setting.replace('"', ""))
    assert f"the default for role {login} is 'x'" in found.problem
    audited.mended()


def test_role_that_may_store_a_default_is_found(audited: Audited, make_role: MakeRole) -> None:
    """SET on the parameter is all that ALTER ROLE … SET takes; it survives DISCARD ALL."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant set on parameter app.current_organization to {role}")
    found = audited.finds("setting_default", "app.current_organization")
    assert f"{role} acts as the application, has SET on the parameter" in found.problem
    audited.mended()

import psycopg2
import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize("value", ["off", "0", "no", "false"])
def test_row_security_disabled(audited: Audited, make_role: MakeRole, value: str) -> None:
    """However the value is written, for a login of the application."""
    role, login = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"grant {role} to {login}", f"alter role {login} set row_security = '{value}'"
    )
    audited.finds("row_security_disabled", f"row_security of role {login}")
    audited.mended()


def test_queries_fail_and_show_nothing(audited: Audited) -> None:
    """The harm: an error in place of the rows; stored for the database it is everybody's."""
    name = audited.database.name
    audited.broken_by(f"alter database {name} set row_security = off")
    with (
        connected(audited.database.app_url) as cursor,
        pytest.raises(
            psycopg2.errors.InsufficientPrivilege, match="affected by row-level security"
        ),
    ):
        cursor.execute("select from test_sets")
    audited.finds("row_security_disabled", f"row_security of database {name}")
    audited.mended()


def test_roles_that_see_all_and_on_are_not_found(audited: Audited, make_role: MakeRole) -> None:
    """A backup's login wants the error in place of a partial dump."""
    role, stranger = make_role(), make_role()
    audited.configure(app_role=role)
    audited.broken_by(
        f"alter role {role} set row_security = on", f"alter role {stranger} set row_security = off"
    )
    assert audited.audit().findings == ()

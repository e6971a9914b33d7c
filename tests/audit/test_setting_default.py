import pytest
from psycopg2 import sql
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import THEIRS, TWO_TENANTS, answer

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


@pytest.mark.parametrize("name", ["app.current_organization", '"APP"."Current_Organization"'])
def test_tenant_of_a_function_is_found(audited: Audited, name: str) -> None:
    """Whoever calls it reads the rows of the tenant that it says."""
    audited.broken_by(
        *TWO_TENANTS,
        "create function names() returns setof text language sql "
        f"set {name} = '{THEIRS}' as 'select name from public.test_sets'",
    )
    assert answer(audited, "select names()") == [("theirs",)]
    found = audited.finds("setting_default", "app.current_organization")
    assert "public.names() runs with" in found.problem
    audited.mended()
    assert answer(audited, "select names()") == [("mine",)]


def test_tenant_of_a_triggers_function_is_found(audited: Audited) -> None:
    """It takes no EXECUTE to set it off."""
    audited.broken_by(
        "create function told() returns trigger language plpgsql "
        f"set app.current_organization = '{THEIRS}' as 'begin return new; end'",
        "revoke execute on function told() from public",
    )
    audited.finds("setting_default", "app.current_organization")
    audited.mended()


def test_event_trigger_that_sets_the_tenant_at_login_is_found(audited: Audited) -> None:
    """Every session then begins with a tenant; one that sets nothing passes."""
    if audited.audit().server_version < "17":
        pytest.skip("event triggers on login are of PostgreSQL 17 and later")
    audited.broken_by(
        "create function counted() returns event_trigger language plpgsql "
        "as $$ begin raise log 'somebody'; end $$",
        "create event trigger counted on login execute function counted()",
    )
    assert audited.audit().findings == ()
    audited.broken_by(
        "create function told() returns event_trigger language plpgsql as $$ begin "
        f"perform set_config('app.current_organization', '{THEIRS}', false); end $$",
        "create event trigger told on login execute function told()",
    )
    found = [each for each in audited.audit().findings if "told" in each.problem]
    assert [each.check for each in found] == ["setting_default"]
    audited.broken_by(found[0].statement or "")
    assert audited.audit().findings == ()

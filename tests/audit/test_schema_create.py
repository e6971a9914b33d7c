import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing.administration import connected


@pytest.mark.parametrize("grantee", ["public", "tenantry_app", "tenantry_login"])
def test_schema_create(audited: Audited, grantee: str) -> None:
    """Who creates in a schema of the search path plants what others call."""
    audited.broken_by(f"grant create on schema public to {grantee}")
    found = audited.finds("schema_create", "public")
    assert found.problem.startswith(f"{grantee} may create")
    audited.mended()


def test_planted_function_comes_before_a_built_in_one(audited: Audited) -> None:
    """The harm: a superuser who names no schema runs what the application wrote."""
    audited.broken_by("grant create on schema public to tenantry_app")
    with connected(audited.database.app_url) as cursor:
        cursor.execute(
            "create function public.lower(varchar) returns text language sql"
            " as $$ select 'planted as ' || current_user $$"
        )
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute("select lower('X'::varchar), 'planted as ' || current_user")
        lowered, planted = cursor.fetchone() or ("", None)
    assert lowered == planted
    audited.broken_by("drop function public.lower(varchar)")
    audited.finds("schema_create", "public")
    audited.mended()


def test_other_schemas_and_the_database_are_looked_at(audited: Audited) -> None:
    """Any schema will do for shadowing, however it is named; and a new one for the database."""
    name = audited.database.name
    audited.broken_by(
        'create schema "A \'b\n""c"',
        'grant create on schema "A \'b\n""c" to public, tenantry_app',
        f"grant create on database {name} to tenantry_login",
    )
    audited.finds("schema_create", '"A \'b\n""c"', name)
    audited.mended()


def test_role_that_the_application_can_become_is_found(
    audited: Audited, make_role: MakeRole
) -> None:
    """SET ROLE is one statement; a role out of reach may create where it likes."""
    other, stranger = make_role(), make_role()
    audited.broken_by(
        f"grant {other} to tenantry_app",
        f"grant create on schema public to {other}, {stranger}",
    )
    found = audited.finds("schema_create", "public")
    assert found.problem.startswith(f"{other} may create")
    audited.mended()

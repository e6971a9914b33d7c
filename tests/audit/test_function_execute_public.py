import psycopg2
import pytest
from tests.audit.conftest import Audited

from tenantry.testing.administration import connected

DEFINER = (
    "create function public.counted() returns bigint language sql security definer"
    " set search_path = pg_catalog, pg_temp as 'select count(*) from public.test_sets'"
)
GIVE = "alter default privileges for role tenantry_owner grant execute on functions to public"


def test_function_execute_public(audited: Audited) -> None:
    """Without default privileges that take it away, everybody has EXECUTE on the next function."""
    audited.broken_by(GIVE)
    audited.finds("function_execute_public", "tenantry_owner")
    audited.mended()


def test_default_of_one_schema_takes_nothing_away(audited: Audited) -> None:
    """It can only add to what the default for all schemas gives."""
    audited.broken_by(
        GIVE,
        "alter default privileges for role tenantry_owner in schema public"
        " revoke execute on functions from public",
    )
    audited.finds("function_execute_public", "tenantry_owner")
    audited.mended()


def test_next_function_is_everybodys(audited: Audited) -> None:
    """The harm, and that the statement ends it: a function of the owner's that nobody granted."""
    for statement, expected in ((GIVE, None), (None, psycopg2.errors.InsufficientPrivilege)):
        if statement is not None:
            audited.broken_by(statement)
        else:
            audited.finds("function_execute_public", "tenantry_owner")
            audited.mended()
        with connected(audited.database.owner_url) as cursor:
            cursor.execute("set role tenantry_owner")
            cursor.execute("drop function if exists public.counted()")
            cursor.execute(DEFINER)
        with connected(audited.database.app_url) as cursor:
            if expected is None:
                cursor.execute("select public.counted()")
            else:
                with pytest.raises(expected):
                    cursor.execute("select public.counted()")
        with connected(audited.database.owner_url) as cursor:
            cursor.execute("set role tenantry_owner")
            cursor.execute("drop function public.counted()")

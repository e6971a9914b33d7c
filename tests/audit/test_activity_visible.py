import pytest
from tests.audit.conftest import Audited

from tenantry.testing.administration import connected

ACTIVITY = "pg_stat_get_activity(integer)"


@pytest.mark.parametrize("function", [ACTIVITY, "pg_stat_get_backend_activity(integer)"])
@pytest.mark.parametrize("grantee", ["public", "tenantry_app"])
def test_activity_visible(audited: Audited, function: str, grantee: str) -> None:
    """Each of the two functions that show other sessions' statements."""
    audited.broken_by(f"grant execute on function pg_catalog.{function} to {grantee}")
    audited.finds("activity_visible", function)
    audited.mended()


def test_another_tenants_value_is_read(audited: Audited) -> None:
    """The harm: a statement of another session of the same login, with the value in it."""
    audited.broken_by(f"grant execute on function pg_catalog.{ACTIVITY} to public")
    with (
        connected(audited.database.app_url) as theirs,
        connected(audited.database.app_url) as ours,
    ):
        theirs.execute("select %s", ["another tenant's"])
        ours.execute(
            "select query from pg_catalog.pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
        assert ("select 'another tenant''s'",) in ours.fetchall()
    audited.finds("activity_visible", ACTIVITY)
    audited.mended()


def test_statements_that_were_kept_are_found(audited: Audited) -> None:
    """The extension's function is found in whatever schema it is; its like is not."""
    audited.broken_by(
        "alter default privileges grant execute on functions to public",
        'create schema "A b"',
        'create extension pg_stat_statements schema "A b"',
        "create function public.pg_stat_statements(boolean) returns integer language sql"
        " as 'select 1'",
    )
    audited.finds("activity_visible", '"A b".pg_stat_statements(boolean)')
    audited.mended()


def test_monitoring_is_not_found(audited: Audited) -> None:
    """The predefined role that monitors has it, as the scripts of this project grant it."""
    audited.broken_by(
        f"grant execute on function pg_catalog.{ACTIVITY} to pg_monitor, tenantry_maintenance"
    )
    assert audited.audit().findings == ()

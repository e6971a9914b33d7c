import psycopg2
import pytest
from tests.audit.conftest import Audited

from tenantry.testing.administration import connected

TERMINATE = "pg_terminate_backend(integer,bigint)"


@pytest.mark.parametrize("function", [TERMINATE, "pg_cancel_backend(integer)"])
@pytest.mark.parametrize("grantee", ["public", "tenantry_login"])
def test_backend_signal(audited: Audited, function: str, grantee: str) -> None:
    """Each of the two functions that reach other sessions."""
    audited.broken_by(f"grant execute on function pg_catalog.{function} to {grantee}")
    audited.finds("backend_signal", function)
    audited.mended()


def test_another_tenants_session_is_ended(audited: Audited) -> None:
    """The harm: its process number is in pg_locks, which everybody reads."""
    audited.broken_by(f"grant execute on function pg_catalog.{TERMINATE} to public")
    with (
        connected(audited.database.app_url) as theirs,
        connected(audited.database.app_url) as ours,
    ):
        theirs.execute("begin")
        theirs.execute("select from public.test_sets")
        ours.execute(
            "select pg_terminate_backend(pid, 10000) from pg_catalog.pg_locks"
            " where relation = 'public.test_sets'::regclass"
        )
        with pytest.raises(psycopg2.OperationalError):
            theirs.execute("select 1")
    audited.finds("backend_signal", TERMINATE)
    audited.mended()

import psycopg2
import pytest
from tests.audit.conftest import Audited, MakeRole

from tenantry.testing import Server
from tenantry.testing.administration import connected


@pytest.fixture
def maintained(audited: Audited, tenantry_server: Server) -> Audited:
    """Return the database of a server that has the privilege."""
    major = int(tenantry_server.version.split(".")[0])
    if major < 17:
        pytest.skip("MAINTAIN came with PostgreSQL 17")
    return audited


@pytest.mark.parametrize("grantee", ["public", "tenantry_app", "tenantry_login"])
def test_maintain_granted(maintained: Audited, grantee: str) -> None:
    """It is part of ALL, and row security has nothing to say of it."""
    maintained.broken_by(f"grant maintain on test_sets to {grantee}")
    maintained.finds("maintain_granted", "public.test_sets")
    maintained.mended()


def test_all_tenants_are_locked_out(maintained: Audited, make_role: MakeRole) -> None:
    """The harm: a role that may not even read the table locks it."""
    role = make_role()
    maintained.configure(app_role=role)
    lock = "lock table public.test_sets in access exclusive mode nowait"
    with connected(maintained.database.superuser_url) as cursor:
        cursor.execute(f"set role {role}")
        cursor.execute("begin")
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            cursor.execute(lock)
        cursor.execute("rollback")
        maintained.broken_by(f"grant maintain on test_sets to {role}")
        cursor.execute("begin")
        cursor.execute(lock)
        with connected(maintained.database.app_url) as theirs:
            theirs.execute("set lock_timeout = '10ms'")
            with pytest.raises(psycopg2.errors.LockNotAvailable):
                theirs.execute("select from test_sets")
        cursor.execute("rollback")
    maintained.finds("maintain_granted", "public.test_sets")
    maintained.mended()


def test_owner_and_other_roles_are_not_found(maintained: Audited, make_role: MakeRole) -> None:
    """Who maintains is meant to."""
    maintained.broken_by(f"grant maintain on test_sets to {make_role()}, tenantry_maintenance")
    assert maintained.audit().findings == ()

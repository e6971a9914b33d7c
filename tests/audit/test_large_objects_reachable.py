import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import THEIRS, answer

from tenantry.testing.administration import connected


def name_of(audited: Audited) -> str:
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute("select quote_ident(current_database())")
        (name,) = cursor.fetchone() or ("",)
        return str(name)


@pytest.mark.parametrize(
    "grant",
    [
        "grant execute on function lo_get(oid) to tenantry_app",
        "grant execute on function loread(integer, integer), lo_put(oid, bigint, bytea) to public",
    ],
)
def test_large_objects_reachable(audited: Audited, grant: str) -> None:
    """All tenants' objects belong to one role: each tenant read what another had stored."""
    audited.broken_by(grant)
    found = audited.finds("large_objects_reachable", name_of(audited))
    assert found.problem.endswith("there are none yet")
    audited.broken_by("select lo_from_bytea(0, 'x')")
    found = audited.finds("large_objects_reachable", name_of(audited))
    assert found.problem.endswith("there are large objects")
    audited.mended()


def test_grants_to_others_pass(audited: Audited) -> None:
    """What a role that is not the application's may call is its own affair."""
    audited.broken_by(
        "grant execute on function lo_get(oid) to tenantry_maintenance",
        "create function lo_mine() returns integer language sql as 'select 1'",
    )
    assert audited.audit().findings == ()


def test_one_tenant_reads_what_another_stored(audited: Audited) -> None:
    """The harm: the object is the role's, and the role is everybody's."""
    audited.broken_by("grant execute on function lo_from_bytea(oid, bytea), lo_get(oid) to public")
    answer(audited, "select lo_from_bytea(7777, 'secret')", tenant=THEIRS)
    assert answer(audited, "select convert_from(lo_get(7777), 'UTF8')") == [("secret",)]

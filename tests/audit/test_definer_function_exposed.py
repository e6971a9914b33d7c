import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import TWO_TENANTS, answer

NAME = 'odd."all ""of\'\n;"'
BODY = (
    "language sql security definer set search_path = pg_catalog, pg_temp "
    "as 'select name from public.test_sets'"
)


@pytest.mark.parametrize("attributes", ["superuser", "bypassrls"])
def test_definer_function_exposed(audited: Audited, make_role: MakeRole, attributes: str) -> None:
    """It returns the rows of all tenants; the same function of a role that is bound does not."""
    role = make_role(attributes)
    audited.broken_by(
        "create schema odd",
        f"create function {NAME}(n integer) returns setof text {BODY}",
        f"revoke execute on function {NAME} from public",
        f"alter function {NAME} owner to {role}",
        f"grant execute on function {NAME} to tenantry_app",
    )
    # Without USAGE on its schema a function cannot be named.
    assert audited.audit().findings == ()
    audited.broken_by("grant usage on schema odd to tenantry_app")
    found = audited.finds("definer_function_exposed", f"{NAME}(integer)")
    assert f"runs as {role}" in found.problem
    audited.mended(f"alter function {NAME} owner to tenantry_owner")


def test_procedure_is_found(audited: Audited) -> None:
    """A procedure changes what a function returns."""
    audited.broken_by(
        "create procedure purge() language sql security definer "
        "set search_path = pg_catalog, pg_temp as 'delete from public.test_sets'",
        "revoke execute on procedure purge() from public",
    )
    assert audited.audit().findings == ()
    audited.broken_by("grant execute on procedure purge() to tenantry_app")
    assert audited.finds("definer_function_exposed", "public.purge()").object_type == "procedure"
    audited.mended("alter procedure purge() security invoker")


def test_function_returns_the_rows_of_all(audited: Audited) -> None:
    """The harm, and that it ends with an owner whom row security binds."""
    audited.broken_by(*TWO_TENANTS, f"create function names() returns setof text {BODY}")
    assert sorted(answer(audited, "select names()")) == [("mine",), ("theirs",)]
    audited.broken_by("alter function names() owner to tenantry_owner")
    assert answer(audited, "select names()") == [("mine",)]

from tests.audit.conftest import Audited

NAME = 'public."who ""asks\'\n"'
CREATE = (
    f"create function {NAME}(integer) returns bigint language sql security definer "
    "set search_path = pg_catalog, pg_temp as 'select count(*) from public.test_sets'"
)
OWNER = f"alter function {NAME} owner to tenantry_owner"


def test_definer_function_public(audited: Audited) -> None:
    """A new function is everybody's; mended, the application may still execute it."""
    audited.broken_by(CREATE, OWNER)
    found = audited.finds("definer_function_public", f"{NAME}(integer)")
    assert "nobody has revoked" in found.problem
    audited.mended()


def test_grant_to_public_is_found(audited: Audited) -> None:
    """Revoked and granted again; a procedure is one too."""
    audited.broken_by(
        "create procedure purge() language sql security definer "
        "set search_path = pg_catalog, pg_temp as 'delete from public.test_sets'",
        "alter procedure purge() owner to tenantry_owner",
        "revoke execute on procedure purge() from public",
    )
    assert audited.audit().findings == ()
    audited.broken_by("grant execute on procedure purge() to public")
    audited.finds("definer_function_public", "public.purge()")
    audited.mended()


def test_functions_that_nobody_can_call_pass(audited: Audited) -> None:
    """In a schema that is closed, or made for triggers; or that run as the caller."""
    audited.broken_by(
        "create schema closed",
        "create function closed.f() returns integer language sql security definer "
        "set search_path = pg_catalog, pg_temp as 'select 1'",
        "alter function closed.f() owner to tenantry_owner",
        "create function stamped() returns trigger language plpgsql security definer "
        "as 'begin return new; end'",
        "create function plain() returns integer language sql as 'select 1'",
    )
    assert audited.audit().findings == ()

import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import TWO_TENANTS, answer

CREATE = "create function counted() returns bigint language sql security definer"
CLOSED = (
    "alter function counted() owner to tenantry_owner",
    "revoke execute on function counted() from public",
    "grant execute on function counted() to tenantry_app",
)
OLD = "as 'select count(*) from test_sets'"
PINNED = "alter function counted() set search_path = pg_catalog, public, pg_temp"


def test_definer_function_search_path(audited: Audited) -> None:
    """A temporary table that the caller made was counted in place of the real one."""
    audited.broken_by(f"{CREATE} {OLD}", *CLOSED)
    audited.finds("definer_function_search_path", "public.counted()")
    audited.mended(PINNED)


@pytest.mark.parametrize(
    "path", ["public", '"$user", public', "pg_temp, public", "pg_temp, public, pg_temp"]
)
def test_path_without_pg_temp_at_its_end_is_found(audited: Audited, path: str) -> None:
    """Where it is not named, the temporary schema is searched first."""
    audited.broken_by(f"{CREATE} set search_path = {path} {OLD}", *CLOSED)
    found = audited.finds("definer_function_search_path", "public.counted()")
    assert (found.statement or "").endswith("public, pg_temp;")
    audited.mended()


def test_one_name_that_looks_like_two_is_found(audited: Audited) -> None:
    """A path in quotes is the name of one schema, which is none."""
    audited.broken_by(
        f"{CREATE} set search_path = 'public, pg_temp' as 'select 1::bigint'", *CLOSED
    )
    audited.finds("definer_function_search_path", "public.counted()")
    audited.mended(PINNED)


def test_body_that_was_checked_at_its_creation_is_pinned_by_the_statement(audited: Audited) -> None:
    """Its own names are found already; those in what it calls may not be."""
    audited.broken_by(f"{CREATE} return (select count(*) from test_sets)", *CLOSED)
    audited.finds("definer_function_search_path", "public.counted()")
    audited.mended()


def test_function_of_a_trigger_is_found(audited: Audited) -> None:
    """It takes no EXECUTE to set it off; while no trigger does, there is no finding."""
    audited.broken_by(
        "create function stamped() returns trigger language plpgsql security definer "
        "as 'begin return new; end'",
        "alter function stamped() owner to tenantry_owner",
    )
    assert audited.audit().findings == ()
    audited.broken_by(
        "create trigger stamp before insert on test_sets for each row execute function stamped()"
    )
    audited.finds("definer_function_search_path", "public.stamped()")
    audited.mended("alter function stamped() set search_path = pg_catalog, pg_temp")


def test_pinned_and_closed_functions_pass(audited: Audited) -> None:
    """So does one that the application may not execute, or that runs as the caller."""
    audited.broken_by(
        f"{CREATE} set search_path = '' as 'select 1::bigint'",
        *CLOSED,
        "create function closed() returns integer language sql security definer as 'select 1'",
        "revoke execute on function closed() from public",
        "create function plain() returns integer language sql as 'select 1'",
    )
    assert audited.audit().findings == ()


def test_temporary_table_takes_the_place_of_the_real_one(audited: Audited) -> None:
    """The harm: with TEMPORARY, which PUBLIC has on a new server, and until it is pinned."""
    body = "as $$ begin return (select count(*) from test_sets); end $$"
    audited.broken_by(
        *TWO_TENANTS,
        f"{CREATE.replace('language sql', 'language plpgsql')} {body}",
        *CLOSED,
        "do $$ begin execute format('grant temporary on database %I to tenantry_app', "
        "current_database()); end $$",
    )
    look = (
        "create temporary table test_sets (n integer)",
        "grant select on test_sets to public",
        "select counted()",
    )
    assert answer(audited, *look) == [(0,)]
    audited.broken_by(PINNED)
    assert answer(audited, *look) == [(1,)]

import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import TWO_TENANTS, answer

NAME = 'public."leak ""s\'\n"'
CREATE = (
    f"create function {NAME}(text) returns boolean language plpgsql leakproof cost 0.0001 "
    "as $$ begin raise notice '%', $1; return true; end $$"
)


def test_function_leakproof(audited: Audited) -> None:
    """In a WHERE clause it is given each row before the policy, and told all of them in notices."""
    audited.broken_by(CREATE)
    audited.finds("function_leakproof", f"{NAME}(text)")
    audited.mended()


def test_function_planted_among_the_servers_own_is_found(audited: Audited) -> None:
    """A function's schema does not make it the server's."""
    audited.broken_by(
        "set allow_system_table_mods = on; create function pg_catalog.same(text) returns text "
        "language sql immutable leakproof as 'select $1'"
    )
    audited.finds("function_leakproof", "same(text)")
    audited.mended()


def test_functions_that_are_not_called_or_not_marked_pass(audited: Audited) -> None:
    """Nor is an operator of an extension that was marked for the sake of an index."""
    audited.broken_by(
        CREATE,
        f"revoke execute on function {NAME} from public",
        "create function plain(text) returns boolean language sql as 'select true'",
        "create extension citext",
        "alter function citext_eq(citext, citext) leakproof",
    )
    assert audited.audit().findings == ()


def test_rows_are_given_to_it_before_the_policy(audited: Audited) -> None:
    """The harm: an error that names another tenant's row; without the mark it names one's own."""
    audited.broken_by(
        *TWO_TENANTS,
        "create function shout(text) returns boolean language plpgsql leakproof cost 0.0001 as "
        "$$ begin if $1 = 'theirs' then raise exception 'saw %', $1; end if; return true; end $$",
    )
    # A table this small is read by its key, which leaves other tenants' rows where they are.
    look = (
        "set enable_indexscan = off",
        "set enable_bitmapscan = off",
        "select name from test_sets where shout(name)",
    )
    with pytest.raises(psycopg2.errors.RaiseException, match="saw theirs"):
        answer(audited, *look)
    audited.broken_by("alter function shout(text) not leakproof")
    assert answer(audited, *look) == [("mine",)]

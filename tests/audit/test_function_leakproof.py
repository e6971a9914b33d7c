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


@pytest.mark.parametrize(
    "function", ["textout(text)", "int4in(cstring)", "int4div(integer,integer)"]
)
def test_mark_on_a_function_of_the_servers_is_found(audited: Audited, function: str) -> None:
    """The server marks those that tell nothing; these tell by their errors."""
    audited.broken_by(f"alter function {function} leakproof")
    audited.finds("function_leakproof", function)
    audited.mended()


def test_mark_of_a_text_in_an_extension_is_found(audited: Audited) -> None:
    """What has been added to an extension is not its author's."""
    audited.broken_by(
        CREATE,
        "create extension citext",
        f"alter extension citext add function {NAME}(text)",
    )
    audited.finds("function_leakproof", f"{NAME}(text)")
    audited.mended()


def test_promise_of_the_script_passes(audited: Audited) -> None:
    """What sql/leakproof.sql marks, it marks with reasons."""
    audited.broken_by(
        "alter function numeric_eq(numeric, numeric) leakproof",
        "alter function textlike(text, text) leakproof",
    )
    assert audited.audit().findings == ()


def test_error_of_a_marked_function_tells_of_another_tenants_row(audited: Audited) -> None:
    """The harm: a division that fails while somebody else has that value."""
    audited.broken_by(
        *TWO_TENANTS,
        "alter table test_sets add column n integer not null default 1",
        "update test_sets set n = 7 where name = 'theirs'",
        "alter function int4div(integer, integer) leakproof",
        "alter function int4mi(integer, integer) leakproof",
    )
    look = (
        "set enable_indexscan = off",
        "set enable_bitmapscan = off",
        "select name from test_sets where 1 / (n - 7) < 5",
    )
    with pytest.raises(psycopg2.errors.DivisionByZero):
        answer(audited, *look)
    audited.broken_by("alter function int4div(integer, integer) not leakproof")
    assert answer(audited, *look) == [("mine",)]

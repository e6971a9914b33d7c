from tests.audit.conftest import Audited

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

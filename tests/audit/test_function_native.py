import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import answer


@pytest.mark.parametrize(
    ("function", "result", "code", "check"),
    [
        ("alias(text)", "bytea", "pg_read_binary_file_all", "server_files_reachable"),
        ("alias(oid)", "bytea", "be_lo_get", "large_objects_reachable"),
        ("alias(integer)", "text", "pg_stat_get_backend_activity", "activity_visible"),
        ("alias(integer, bigint)", "boolean", "pg_terminate_backend", "backend_signal"),
    ],
)
def test_function_native(
    audited: Audited, function: str, result: str, code: str, check: str
) -> None:
    """The server's own code under another name is PUBLIC's, and is known by its code."""
    audited.broken_by(
        f"create function {function} returns {result} language internal strict as '{code}'"
    )
    name = f"public.{function.replace(', ', ',')}"
    known = audited.database.name if check == "large_objects_reachable" else name
    found = audited.finds("function_native", name, besides=((check, known),))
    assert code in found.problem
    audited.mended()


def test_function_of_a_library_is_found(audited: Audited) -> None:
    """Without its extension, nothing tells what it is."""
    audited.broken_by(
        "create function linked(text, text) returns setof record language c "
        "as '$libdir/dblink', 'dblink_record'"
    )
    audited.finds("function_native", "public.linked(text,text)")
    audited.mended()


def test_functions_of_extensions_and_closed_ones_pass(audited: Audited) -> None:
    """Code in C that somebody answers for, or that the application may not run."""
    audited.broken_by(
        "create extension pg_trgm",
        "create extension hstore",
        "create function alias(text) returns bytea language internal strict "
        "as 'pg_read_binary_file_all'",
        "revoke execute on function alias(text) from public",
    )
    assert audited.audit().findings == ()


def test_server_reads_its_files_under_another_name(audited: Audited) -> None:
    """The harm: no grant is needed, since a new function is everybody's."""
    audited.broken_by(
        "create function slurp(text) returns bytea language internal strict "
        "as 'pg_read_binary_file_all'"
    )
    assert answer(audited, "select length(slurp('PG_VERSION')) > 0") == [(True,)]

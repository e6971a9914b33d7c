import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import answer


@pytest.mark.parametrize(
    ("function", "grantee"),
    [
        ("pg_read_file(text)", "tenantry_app"),
        ("pg_read_binary_file(text,bigint,bigint)", "public"),
        ("lo_import(text)", "tenantry_login"),
        ("lo_export(oid,text)", "tenantry_app"),
        ("pg_ls_dir(text)", "tenantry_app"),
        ("pg_hba_file_rules()", "tenantry_app"),
    ],
)
def test_server_files_reachable(audited: Audited, function: str, grantee: str) -> None:
    """The rows of all tenants are in files that the server reads for whoever may ask."""
    audited.broken_by(f"grant execute on function {function} to {grantee}")
    found = audited.finds("server_files_reachable", function)
    assert found.problem.startswith(f"{grantee} may execute it")
    audited.mended()


def test_functions_of_the_same_name_pass(audited: Audited) -> None:
    """One of one's own reads what its caller may; a grant to others is not the application's."""
    audited.broken_by(
        "create function pg_read_file(integer) returns integer language sql as 'select 1'",
        "grant execute on function pg_read_file(text) to tenantry_maintenance",
    )
    assert audited.audit().findings == ()


def test_server_reads_its_files_for_the_application(audited: Audited) -> None:
    """The harm: a file of the server, which holds no rows but could."""
    look = "select length(pg_read_file('PG_VERSION')) > 0"
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        answer(audited, look)
    audited.broken_by("grant execute on function pg_read_file(text) to tenantry_app")
    assert answer(audited, look) == [(True,)]


def test_renamed_function_is_found(audited: Audited) -> None:
    """A name may be any: the code that runs is the same."""
    audited.broken_by(
        "alter function pg_read_file(text) rename to pg_slurp",
        "grant execute on function pg_slurp(text) to tenantry_app",
    )
    audited.finds("server_files_reachable", "pg_slurp(text)")
    audited.mended()

from tests.audit.conftest import Audited, MakeRole


def test_runtime_role_predefined(audited: Audited, make_role: MakeRole) -> None:
    """A member of pg_read_server_files reads the tables' own files."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant pg_read_server_files to {role}")
    found = audited.finds("runtime_role_predefined", role)
    assert "pg_read_server_files" in found.problem
    audited.mended()

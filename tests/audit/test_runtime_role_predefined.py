import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize("predefined", ["pg_read_server_files", "pg_read_all_data"])
def test_runtime_role_predefined(audited: Audited, make_role: MakeRole, predefined: str) -> None:
    """One reads the tables' own files, the other the statistics of all tenants and passwords."""
    role = make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant {predefined} to {role}")
    found = audited.finds("runtime_role_predefined", role)
    assert predefined in found.problem
    audited.mended()

import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize("privilege", ["TRUNCATE", "TRIGGER", "REFERENCES"])
def test_privilege_unguarded(audited: Audited, privilege: str) -> None:
    """Row security covers SELECT, INSERT, UPDATE and DELETE; the other three go round it."""
    audited.broken_by(f"grant {privilege} on test_sets to tenantry_app")
    found = audited.finds("privilege_unguarded", "public.test_sets")
    assert f"tenantry_app has {privilege}" in found.problem
    audited.mended()


def test_column_privilege_is_found(audited: Audited) -> None:
    """REFERENCES on one column is enough for a foreign key; revoked from the table, it is gone."""
    audited.broken_by("grant references (id) on test_sets to tenantry_app")
    audited.finds("privilege_unguarded", "public.test_sets")
    audited.mended()


def test_grant_to_public_is_named(audited: Audited) -> None:
    """What PUBLIC has everybody has: it is one finding, and the statement takes it from PUBLIC."""
    audited.broken_by("grant trigger on test_sets to public")
    found = audited.finds("privilege_unguarded", "public.test_sets")
    assert (found.statement or "").endswith(" from public;")
    audited.mended()


def test_role_that_the_application_can_become_is_named(
    audited: Audited, make_role: MakeRole
) -> None:
    """SET ROLE, and the table is emptied."""
    role, cleaner = make_role("noinherit"), make_role()
    audited.configure(app_role=role)
    audited.broken_by(f"grant truncate on test_sets to {cleaner}", f"grant {cleaner} to {role}")
    found = audited.finds(
        "privilege_unguarded", "public.test_sets", besides=(("role_reachable", role),)
    )
    assert found.problem.startswith(f"{cleaner} has TRUNCATE")
    audited.mended()

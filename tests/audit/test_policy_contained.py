from tests.audit.conftest import Audited


def test_policy_contained(audited: Audited) -> None:
    """A second permissive policy behind a wall is a note, and no fault."""
    audited.broken_by("create policy shared on test_sets for select using (true)")
    found = audited.finds("policy_contained", "shared on public.test_sets")
    assert found.problem == "using is true, all rows (the wall contains it)"
    assert not audited.audit().fails()
    audited.mended("drop policy shared on test_sets")

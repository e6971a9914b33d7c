from tests.audit.conftest import Audited


def test_permissive_missing(audited: Audited) -> None:
    """With the wall alone nobody sees a row: safe, and hardly meant."""
    audited.broken_by("drop policy test_sets_tenant on test_sets")
    audited.finds("permissive_missing", "public.test_sets")
    assert not audited.audit().fails()
    audited.mended()

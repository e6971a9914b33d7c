from tests.audit.conftest import Audited


def test_permissive_missing(audited: Audited) -> None:
    """With the wall alone nobody sees a row: safe, and hardly meant."""
    audited.broken_by("drop policy test_sets_tenant on test_sets")
    audited.finds("permissive_missing", "public.test_sets")
    assert not audited.audit().fails()
    audited.mended()


def test_statement_finds_a_name_that_is_free(audited: Audited) -> None:
    """The usual name may be taken by a restrictive policy."""
    audited.broken_by(
        "drop policy test_sets_tenant on test_sets",
        "alter policy test_sets_tenant_wall on test_sets rename to test_sets_tenant",
    )
    assert "create policy tenant on" in (
        audited.finds("permissive_missing", "public.test_sets").statement or ""
    )
    audited.mended()

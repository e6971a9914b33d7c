from tests.audit.conftest import Audited


def test_audit_limited(audited: Audited) -> None:
    """A check that may not read its catalog is said not to have seen, and the audit fails."""
    audited.broken_by("revoke select on pg_catalog.pg_index from public")
    found = audited.finds("audit_limited", "unique_without_tenant")
    assert "may not read the indexes" in found.problem
    report = audited.audit()
    assert [(each.check, each.blind) for each in report.unseen] == [("unique_without_tenant", True)]
    assert report.fails()
    assert report.verdict.startswith("NOT ISOLATED: 1 checks could not look")
    audited.mended("grant select on pg_catalog.pg_index to public")

from tests.audit.conftest import Audited

from tenantry.audit import checks


def test_audit_limited(audited: Audited) -> None:
    """A check that may not read its catalog is said not to have seen, and the audit fails."""
    blind = sorted(each.id for each in checks() if "pg_catalog.pg_index " in each.query)
    assert "unique_without_tenant" in blind
    audited.broken_by("revoke select on pg_catalog.pg_index from public")
    found = audited.finds("audit_limited", *blind)
    assert "may not read the indexes" in found.problem
    report = audited.audit()
    assert sorted((each.check, each.blind) for each in report.unseen) == [
        (check_id, True) for check_id in blind
    ]
    assert report.fails()
    assert report.verdict.startswith(f"NOT ISOLATED: {len(blind)} checks could not look")
    audited.mended("grant select on pg_catalog.pg_index to public")

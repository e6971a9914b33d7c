import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize(
    "grant",
    [
        "select on maintenance_log to tenantry_app",
        "select (reason) on maintenance_log to public",
        "update, delete on maintenance_log to tenantry_maintenance",
        "truncate on maintenance_log to tenantry_maintenance, tenantry_maintainer",
    ],
)
def test_maintenance_log_open(audited: Audited, grant: str) -> None:
    """Nobody of the application reads it, and whom it watches does not rewrite it."""
    audited.broken_by(f"grant {grant}")
    audited.finds("maintenance_log_open", "public.maintenance_log")
    audited.mended()


def test_auditor_reads_it_and_maintenance_adds_to_it(audited: Audited, make_role: MakeRole) -> None:
    """As it should be; and a log of other things that is called so."""
    audited.broken_by(
        f"grant select on maintenance_log to {make_role()}",
        "grant insert on maintenance_log to tenantry_maintenance",
        "create schema cars",
        "create table cars.maintenance_log (car integer, reason text)",
        "grant select on cars.maintenance_log to tenantry_app",
    )
    assert audited.audit().findings == ()

from contextlib import closing

import psycopg2
import pytest
from tests.audit.conftest import Audited

from tenantry.audit import AuditConfig, checks
from tenantry.audit.transaction import prepared, rows_of
from tenantry.config import libpq_url

CHECK = next(check for check in checks() if check.id == "server_version_cve")
VERSION = "pg_catalog.current_setting('server_version_num')::integer"


def found(audited: Audited, version: int) -> list[tuple[str, str, str]]:
    """Return object, problem and remedy as on a server of this version."""
    assert CHECK.query.count(VERSION) == 1
    with (
        closing(psycopg2.connect(libpq_url(audited.database.app_url))) as connection,
        prepared(connection, AuditConfig()) as cursor,
    ):
        cursor.execute(CHECK.query.replace(VERSION, str(version)))
        return [(row[3], row[4], row[5]) for row in rows_of(cursor)]


@pytest.mark.parametrize(
    ("version", "named", "least"),
    [
        (150002, "PostgreSQL 15.2", "15.19"),
        (150018, "PostgreSQL 15.18", "15.19"),
        (160000, "PostgreSQL 16.0", "16.15"),
        (170005, "PostgreSQL 17.5", "17.11"),
        (180004, "PostgreSQL 18.4", "18.6"),
    ],
)
def test_server_version_cve(audited: Audited, version: int, named: str, least: str) -> None:
    """One finding that names each hole, and the version in which the last of them is mended."""
    ((name, problem, remedy),) = found(audited, version)
    assert name == named
    assert "CVE-2026-14666" in problem
    assert ("CVE-2025-8713" in problem) == (version in (150002, 160000, 170005))
    assert ("CVE-2023-39418" in problem) == (version < 150004)
    assert ("CVE-2024-10976" in problem) == (version in (150002, 160000))
    assert f"{least} at least" in remedy


@pytest.mark.parametrize("version", [150019, 150020, 160015, 170011, 180006, 180007, 190000])
def test_version_without_these_holes_is_not_found(audited: Audited, version: int) -> None:
    """The mended minor version itself, later ones, and majors that never had them."""
    assert found(audited, version) == []


def test_server_at_hand_is_judged_by_its_own_version(audited: Audited) -> None:
    """The check as it is asks the server, and agrees with what it says of that version."""
    with closing(psycopg2.connect(libpq_url(audited.database.app_url))) as connection:
        expected = found(audited, connection.server_version)
    report = audited.audit(only=["server_version_cve"])
    assert [(each.object, each.problem, each.remedy) for each in report.findings] == expected

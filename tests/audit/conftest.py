"""What the tests of the audit share: a database to break, and the cycle of breaking and mending."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from secrets import token_hex
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql
from tests.conftest import RequireService

from tenantry.audit import AuditConfig, Finding, Report, checks, run_audit
from tenantry.config import libpq_url
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected

MakeRole = Callable[..., str]

OF_THE_SERVER = "server_version_cve"
# The version of the server at hand is no test's doing.
OF_THE_DATABASE = tuple(check.id for check in checks() if check.id != OF_THE_SERVER)


class Audited:
    """A migrated database of the test's own, audited as the application's login.

    The cycle of a check's test: `broken_by` makes the fault, `finds` expects that finding and no
    other, `mended` applies the finding's own statement (or one given by hand, where the finding has
    none) and expects a clean report.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.config = AuditConfig()
        self._found: tuple[Finding, ...] = ()

    def configure(self, **names: Any) -> None:
        """Change names of the tenancy (app_role, tenant_column…) or of the audit (schemas…)."""
        of_audit = {name: names.pop(name) for name in list(names) if hasattr(self.config, name)}
        tenancy = replace(self.config.tenancy, **names)
        self.config = replace(self.config, tenancy=tenancy, **of_audit)

    def broken_by(self, *statements: str) -> None:
        """Execute the statements as a superuser."""
        with connected(self.database.superuser_url) as cursor:
            for statement in statements:
                cursor.execute(statement)

    def audit(self, **options: Any) -> Report:
        """Return the report, as the application's login gets it."""
        options.setdefault("only", OF_THE_DATABASE)
        with closing(psycopg2.connect(libpq_url(self.database.app_url))) as connection:
            return run_audit(connection, self.config, **options)

    def finds(
        self, check: str, *objects: str, besides: tuple[tuple[str, str], ...] = ()
    ) -> Finding:
        """Expect this check's findings on these objects and, but for those named, nothing else.

        Args:
            check: the check's id.
            objects: one for each finding.
            besides: (check, object) of findings that the fault cannot be made without.
        """
        self._found = self.audit().findings
        expected = sorted([*((check, name) for name in objects), *besides])
        assert sorted((each.check, each.object) for each in self._found) == expected, self._found
        return next(each for each in self._found if each.check == check)

    def mended(self, *by_hand: str) -> None:
        """Apply the statements of what was found, or these where they have none; expect nothing."""
        own = [each.statement for each in self._found if each.statement is not None]
        # By hand is for what has no statement, and what has one is mended by it.
        assert (len(own) < len(self._found)) == bool(by_hand), self._found
        self.broken_by(*own, *by_hand)
        report = self.audit()
        assert report.findings == ()
        assert report.verdict.startswith("ISOLATED: ")


@pytest.fixture
def audited(
    tenantry_server: Server, require_service: RequireService, request: pytest.FixtureRequest
) -> Audited:
    """Return a migrated database of the test's own in which nothing is wrong yet."""
    require_service(tenantry_server.superuser, "the server's administrator is no superuser")
    return Audited(request.getfixturevalue("fresh_database"))


@pytest.fixture
def make_role(audited: Audited) -> Iterator[MakeRole]:
    """Return what creates a role of the test's own; roles belong to the whole server."""
    made: list[str] = []

    def make(attributes: str = "", name: str = "role") -> str:
        role = f"{name}_{token_hex(4)}"
        with connected(audited.database.superuser_url) as cursor:
            cursor.execute(
                sql.SQL("create role {} ").format(sql.Identifier(role)) + sql.SQL(attributes)
            )
        made.append(role)
        return role

    yield make
    with connected(audited.database.superuser_url) as cursor:
        for statement in ("drop owned by {}", "drop role {}"):
            for role in made:
                cursor.execute(sql.SQL(statement).format(sql.Identifier(role)))

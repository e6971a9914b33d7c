"""What an audit found: findings, those that are allowed, and what it could not see."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from tenantry.audit.baseline import Allowance
from tenantry.audit.listing import ListedRole, ListedTable


class Severity(IntEnum):
    """How bad a finding is; a greater one is worse."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    @classmethod
    def named(cls, name: str) -> "Severity":
        """Return the severity that a check calls by this name."""
        return cls[name.upper()]

    def __str__(self) -> str:
        """Return the name, as checks write it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One fault of one object; the columns that each check returns.

    Attributes:
        check: the check's id.
        severity: the same for all findings of a check.
        object_type: what kind of object it is: table, policy, role…
        object: its name, qualified with the schema and quoted as PostgreSQL prints it.
        problem: what is wrong.
        remedy: how to mend it.
        statement: the SQL that mends it; None where a person has to decide.
        fingerprint: of what was found: it changes with what is wrong and, of code, policies, views,
            constraints and roles, with how they are defined. A baseline allows no other.
    """

    check: str
    severity: Severity
    object_type: str
    object: str
    problem: str
    remedy: str
    statement: str | None
    fingerprint: str = ""

    def __str__(self) -> str:
        """Return one line for a person."""
        return f"{self.severity} {self.check}: {self.object_type} {self.object}: {self.problem}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AllowedFinding:
    """A finding that the baseline allows, with the reason it gives."""

    finding: Finding
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StaleAllowance:
    """An entry of the baseline that allowed nothing, and why."""

    allowance: Allowance
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unseen:
    """A check that could not see all it judges.

    Attributes:
        check: the check's id.
        why: what is hidden from the role.
        blind: the check did not run at all; otherwise it saw a part.
    """

    check: str
    why: str
    blind: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one audit of one database found; printable, comparable, and nothing is left out of it.

    Attributes:
        database: its name.
        role: the role that looked.
        server_version: as `server_version` prints it.
        tables: number of tables that hold tenants' rows.
        checks: ids of the checks that were run, in order.
        findings: what no baseline allows, the worst first.
        allowed: what the baseline allows.
        stale: entries of the baseline that allowed nothing.
        unseen: checks that could not see all they judge.
        matrix: for each table and command, what keeps it inside its tenant.
        roles: who acts as the application.
        unlisted: which of these two could not be read, and why.
    """

    database: str
    role: str
    server_version: str
    tables: int
    checks: tuple[str, ...]
    findings: tuple[Finding, ...]
    allowed: tuple[AllowedFinding, ...] = ()
    stale: tuple[StaleAllowance, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    matrix: tuple[ListedTable, ...] = ()
    roles: tuple[ListedRole, ...] = ()
    unlisted: tuple[str, ...] = ()

    def fails(self, at: Severity = Severity.ERROR) -> bool:
        """Say whether there is a finding this bad or worse, or a check that saw nothing."""
        return any(finding.severity >= at for finding in self.findings) or any(
            unseen.blind for unseen in self.unseen
        )

    def count(self, severity: Severity) -> int:
        """Return the number of findings of this severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line: whether tenants are kept apart, and what else was found."""
        faults = [
            text
            for number, text in (
                (self.count(Severity.ERROR), "error-level findings"),
                (sum(unseen.blind for unseen in self.unseen), "checks could not look"),
            )
            if number
            for text in (f"{number} {text}",)
        ]
        verdict = (
            f"NOT ISOLATED: {'; '.join(faults)}"
            if faults
            else f"ISOLATED: {len(self.checks)} checks of {self.tables} tables, no fault found"
        )
        rest = {
            "warnings": self.count(Severity.WARNING),
            "notes": self.count(Severity.NOTE),
            "allowed": len(self.allowed),
        }
        told = [f"{name}: {number}" for name, number in rest.items() if number]
        if self.roles and not any(role.login for role in self.roles):
            # Who connects is then not known, and is not judged.
            told.append("no login acts as the application")
        return "; ".join((verdict, *told))


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the worst first, then in the order of their checks."""
    return tuple(sorted(findings, key=lambda finding: -finding.severity))

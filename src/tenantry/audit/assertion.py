"""The audit as an assertion, for a project's own tests."""

from psycopg2.extensions import connection as DriverConnection  # noqa: N812
from sqlalchemy import Connection

from tenantry.audit.baseline import Baseline
from tenantry.audit.formats.escapes import visible
from tenantry.audit.parameters import DEFAULT_AUDIT, AuditConfig
from tenantry.audit.report import Severity
from tenantry.audit.runner import run_audit
from tenantry.config import TenancyConfig

_NO_BASELINE = Baseline()


def assert_isolated(
    connection: Connection | DriverConnection,
    config: AuditConfig | TenancyConfig = DEFAULT_AUDIT,
    *,
    baseline: Baseline = _NO_BASELINE,
    at: Severity = Severity.ERROR,
) -> None:
    """Return only if the audit of the connection's database finds nothing this bad or worse.

    Args:
        connection: of SQLAlchemy or psycopg2, outside a transaction.
        config: what the database calls its tenants.
        baseline: findings that are allowed.
        at: the least severity that fails.

    Raises:
        AssertionError: it found something, which the message lists with the statements that mend
            it, or a check could not look.
        AuditError: the audit could not be run at all.
    """
    report = run_audit(connection, config, baseline=baseline)
    if not report.fails(at):
        return
    found = [finding for finding in report.findings if finding.severity >= at]
    lines = [
        f"{len(found)} finding{'' if len(found) == 1 else 's'} of severity {at} or worse in the "
        f"database {report.database}, seen as {report.role}:"
    ]
    for finding in found:
        lines.append(f"  {visible(str(finding))}")
        lines.append(f"    {visible(finding.statement or finding.remedy, keep=chr(10))}")
    lines += [
        f"  {unseen.check} {'could not look' if unseen.blind else 'saw a part alone'}: "
        f"{visible(unseen.why)}"
        for unseen in report.unseen
    ]
    raise AssertionError("\n".join(lines))

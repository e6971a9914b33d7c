"""The report as one page of HTML: for a browser in light or dark, a printer, a screen reader."""

from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from tenantry.audit.catalogue import summary
from tenantry.audit.formats.escapes import visible
from tenantry.audit.listing import COMMANDS, Protection
from tenantry.audit.report import Finding, Report, Severity

# Beside the word a sign, so that nobody has to tell colours apart.
_SIGNS: Final = {
    Protection.WALLED: "✓",
    Protection.CLOSED: "·",
    Protection.THIN: "△",
    Protection.OPEN: "✗",
}
_LEGEND: Final = {
    Protection.WALLED: "granted, and the restrictive policy holds it inside the tenant",
    Protection.CLOSED: "not granted to the application; or, as it then says, no row is let through",
    Protection.THIN: "right as it is, but nothing is behind it; or a key that tells of other "
    "tenants' values",
    Protection.OPEN: "nothing keeps it inside the tenant",
}


def render_html(report: Report) -> str:
    """Return a page that asks for nothing else: no script, no font, no picture, no request.

    Whatever comes from the database is text, never markup, whatever it is called.
    """
    # Whatever the template is named, its values are escaped.
    environment = Environment(
        loader=PackageLoader("tenantry.audit.formats", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["visible"] = visible
    return environment.get_template("page.html").render(
        report=report,
        failed=report.fails(),
        now=datetime.now(UTC),
        groups=_groups(report.findings),
        tally=_tally(report),
        columns=COMMANDS,
        signs=_SIGNS,
        legend=_LEGEND,
        summaries={check: summary(check) for check in report.checks},
        found=Counter(finding.check for finding in report.findings),
        unseen={unseen.check for unseen in report.unseen if unseen.blind},
    )


def _groups(findings: Iterable[Finding]) -> list[tuple[Severity, list[Finding]]]:
    listed = list(findings)
    groups = [
        (severity, [finding for finding in listed if finding.severity is severity])
        for severity in sorted(Severity, reverse=True)
    ]
    return [(severity, found) for severity, found in groups if found]


def _tally(report: Report) -> list[tuple[str, int, str]]:
    """Return what there is of what: a label, a number, and the class of its colour if not zero."""
    return [
        ("errors", report.count(Severity.ERROR), "error"),
        ("warnings", report.count(Severity.WARNING), "warning"),
        ("notes", report.count(Severity.NOTE), "note"),
        ("allowed", len(report.allowed), "plain"),
        ("could not look", sum(unseen.blind for unseen in report.unseen), "error"),
        ("tables", report.tables, "plain"),
        ("checks", len(report.checks), "plain"),
    ]

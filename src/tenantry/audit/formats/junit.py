"""The report as JUnit's XML, which continuous integration shows as tests."""

from collections.abc import Iterable
from xml.etree import ElementTree as Xml

from tenantry.audit.catalogue import checks
from tenantry.audit.formats.escapes import visible
from tenantry.audit.report import Finding, Report, Severity


def render_junit(report: Report, fail_on: Severity | None = Severity.ERROR) -> str:
    """Return one test case for each check that was run.

    A check fails that found something at or above `fail_on`; one that could not look is skipped;
    what passes all the same (milder and allowed findings) is its output. Without a fail_on none
    fails.
    """
    severities = {check.id: check.severity for check in checks()}
    blind = {unseen.check: unseen.why for unseen in report.unseen if unseen.blind}
    failed = {
        finding.check
        for finding in report.findings
        if fail_on is not None and finding.severity >= fail_on
    }
    counts = {
        "tests": str(len(report.checks)),
        "failures": str(len(failed)),
        "errors": "0",
        "skipped": str(len(blind)),
    }
    root = Xml.Element("testsuites", {"name": "tenantry audit", **counts})
    name = visible(f"tenantry audit {report.database}")
    suite = Xml.SubElement(root, "testsuite", {"name": name, **counts})
    properties = Xml.SubElement(suite, "properties")
    for name, value in (
        ("database", report.database),
        ("role", report.role),
        ("server_version", report.server_version),
        ("verdict", report.verdict),
    ):
        Xml.SubElement(properties, "property", name=name, value=visible(value))
    for check_id in report.checks:
        case = Xml.SubElement(
            suite,
            "testcase",
            classname=f"tenantry.audit.{severities[check_id]}",
            name=check_id,
            time="0",
        )
        found = [finding for finding in report.findings if finding.check == check_id]
        if check_id in blind:
            Xml.SubElement(case, "skipped", message=visible(f"not seen: {blind[check_id]}"))
        elif check_id in failed:
            failure = Xml.SubElement(
                case,
                "failure",
                type=str(severities[check_id]),
                message=visible(f"{len(found)} found, the first: {found[0]}"),
            )
            failure.text = _told(found)
        passed = [] if check_id in failed else [_told(found)] if found else []
        passed += [
            visible(f"allowed: {each.finding}: {each.reason}")
            for each in report.allowed
            if each.finding.check == check_id
        ]
        passed += [
            visible(f"saw a part alone: {unseen.why}")
            for unseen in report.unseen
            if unseen.check == check_id and not unseen.blind
        ]
        if passed:
            Xml.SubElement(case, "system-out").text = "\n".join(passed)
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode", xml_declaration=True)


def _told(findings: Iterable[Finding]) -> str:
    # XML cannot hold most control characters, not even written as a reference.
    return "\n".join(
        f"{visible(str(finding))}\n  {visible(finding.statement or finding.remedy, keep=chr(10))}"
        for finding in findings
    )

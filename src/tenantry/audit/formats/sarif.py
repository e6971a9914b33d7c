"""The report as a SARIF log, which code-scanning services and editors read."""

import hashlib
import json
import re
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final
from urllib.parse import quote

from tenantry.audit.catalogue import checks, explanation, summary
from tenantry.audit.formats.escapes import visible
from tenantry.audit.report import Finding, Report, Severity

_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_MANUAL: Final = "https://www.postgresql.org/docs/current/ddl-rowsecurity.html"
_ADDRESS: Final = re.compile(r"https://[^\s)>\]]+[^\s)>\].,;:]")
# What services that sort by a score make of it: critical or high, medium, low.
_SCORES: Final = {Severity.ERROR: "9.0", Severity.WARNING: "5.0", Severity.NOTE: "2.0"}


def render_sarif(report: Report) -> str:
    """Return the report as a SARIF 2.1.0 log with one run.

    What the baseline allows is a suppressed result with its reason. A check that could not look is
    a notification, and makes the run unsuccessful.

    Source: SARIF 2.1.0, OASIS Standard with errata 01.
    """
    index = {check_id: position for position, check_id in enumerate(report.checks)}
    entries: list[tuple[Finding, str | None]] = [(finding, None) for finding in report.findings]
    entries += [(each.finding, each.reason) for each in report.allowed]
    seen: Counter[tuple[str, str]] = Counter()
    results = []
    for finding, reason in entries:
        key = (finding.check, finding.object)
        results.append(_result(report, finding, reason, index[finding.check], seen[key]))
        seen[key] += 1
    run = {
        "tool": {"driver": _driver(report)},
        "automationDetails": {"id": f"tenantry-audit/{quote(report.database, safe='')}/"},
        "invocations": [
            {
                "executionSuccessful": not any(unseen.blind for unseen in report.unseen),
                "toolExecutionNotifications": [
                    {
                        "descriptor": {"id": unseen.check},
                        "level": "error" if unseen.blind else "warning",
                        "message": {"text": visible(unseen.why)},
                    }
                    for unseen in report.unseen
                ],
            }
        ],
        "results": results,
        "properties": {
            "verdict": report.verdict,
            "database": report.database,
            "role": report.role,
            "serverVersion": report.server_version,
        },
    }
    log = {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(log, indent=2, ensure_ascii=False)


def _driver(report: Report) -> dict[str, Any]:
    driver: dict[str, Any] = {"name": "tenantry audit"}
    try:
        driver["version"] = version("tenantry")
    except PackageNotFoundError:
        driver["version"] = "unknown: run from its source"
    known = {check.id: check for check in checks()}
    driver["rules"] = [_rule(check_id, known[check_id].severity) for check_id in report.checks]
    return driver


def _rule(check_id: str, severity: Severity) -> dict[str, Any]:
    page, what = explanation(check_id), summary(check_id)
    address = _ADDRESS.search(page)
    return {
        "id": check_id,
        "name": "".join(part.capitalize() for part in check_id.split("_")),
        "shortDescription": {"text": what},
        "fullDescription": {"text": what},
        "help": {"text": page, "markdown": page},
        "helpUri": address.group() if address else _MANUAL,
        "defaultConfiguration": {"level": str(severity)},
        "properties": {
            "tags": ["security", "multi-tenancy"],
            "security-severity": _SCORES[severity],
        },
    }


def _result(
    report: Report, finding: Finding, reason: str | None, rule: int, number: int
) -> dict[str, Any]:
    name = visible(finding.object)
    identity = "\0".join((finding.check, finding.object, str(number)))
    result: dict[str, Any] = {
        "ruleId": finding.check,
        "ruleIndex": rule,
        "level": str(finding.severity),
        "message": {
            "text": f"{finding.object_type} {name}: {visible(finding.problem)}. "
            f"To mend it: {visible(finding.remedy)}."
        },
        "locations": [
            {
                # Services that know files alone ask for one: the object's name serves as its path.
                "physicalLocation": {
                    "artifactLocation": {
                        "uri": f"{quote(report.database, safe='')}/{quote(finding.object, safe='')}"
                    },
                    "region": {"startLine": 1},
                },
                "logicalLocations": [
                    {"name": name, "fullyQualifiedName": name, "kind": finding.object_type}
                ],
            }
        ],
        "partialFingerprints": {
            "tenantryFinding/v1": hashlib.sha256(identity.encode()).hexdigest()
        },
        "properties": {"remedy": finding.remedy, "statement": finding.statement},
    }
    if reason is not None:
        result["suppressions"] = [
            {"kind": "external", "status": "accepted", "justification": reason}
        ]
    return result

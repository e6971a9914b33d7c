import json
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree as Xml

import jsonschema_rs
import pytest
from tests.audit.conftest import Audited

from tenantry.audit import Allowance, Baseline, Report, Severity
from tenantry.audit.formats import (
    Format,
    render,
    render_json,
    render_junit,
    render_sarif,
    render_table,
)
from tenantry.exceptions import ConfigurationError

# A name may hold anything but NUL: markup, an escape sequence, a line that looks like a verdict.
HOSTILE = '<script>alert(1)</script>\nISOLATED: ""\'&\x1b[2J\u202e'
TABLE = f'public."{HOSTILE}"'


def of(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        "required": list(required),
    }


TEXT = {"type": "string", "minLength": 1}
URI = {"type": "string", "format": "uri"}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
MESSAGE = of({"text": TEXT, "markdown": TEXT}, "text")
BAG = {"type": "object"}
RULE = of(
    {
        "id": TEXT,
        "name": TEXT,
        "shortDescription": MESSAGE,
        "fullDescription": MESSAGE,
        "help": MESSAGE,
        "helpUri": URI,
        "defaultConfiguration": of({"level": LEVEL}, "level"),
        "properties": BAG,
    },
    "id",
)
LOCATION = of(
    {
        "physicalLocation": of(
            {
                "artifactLocation": of({"uri": {"type": "string", "format": "uri-reference"}}),
                "region": of({"startLine": {"type": "integer", "minimum": 1}}),
            },
            "artifactLocation",
        ),
        "logicalLocations": {
            "type": "array",
            "uniqueItems": True,
            "items": of({"name": TEXT, "fullyQualifiedName": TEXT, "kind": TEXT}),
        },
    }
)
RESULT = of(
    {
        "ruleId": TEXT,
        "ruleIndex": {"type": "integer", "minimum": -1},
        "level": LEVEL,
        "message": MESSAGE,
        "locations": {"type": "array", "items": LOCATION},
        "partialFingerprints": {"type": "object", "additionalProperties": TEXT},
        "suppressions": {
            "type": "array",
            "uniqueItems": True,
            "items": of(
                {
                    "kind": {"enum": ["inSource", "external"]},
                    "status": {"enum": ["accepted", "underReview", "rejected"]},
                    "justification": TEXT,
                },
                "kind",
            ),
        },
        "properties": BAG,
    },
    "message",
)
NOTIFICATION = of({"descriptor": of({"id": TEXT}), "level": LEVEL, "message": MESSAGE}, "message")
# Of the published schema the objects that are used here, which allow no other property.
SARIF = of(
    {
        "$schema": URI,
        "version": {"enum": ["2.1.0"]},
        "runs": {
            "type": "array",
            "items": of(
                {
                    "tool": of(
                        {
                            "driver": of(
                                {
                                    "name": TEXT,
                                    "version": TEXT,
                                    "rules": {
                                        "type": "array",
                                        "uniqueItems": True,
                                        "items": RULE,
                                    },
                                },
                                "name",
                            )
                        },
                        "driver",
                    ),
                    "automationDetails": of({"id": TEXT}),
                    "invocations": {
                        "type": "array",
                        "items": of(
                            {
                                "executionSuccessful": {"type": "boolean"},
                                "toolExecutionNotifications": {
                                    "type": "array",
                                    "items": NOTIFICATION,
                                },
                            },
                            "executionSuccessful",
                        ),
                    },
                    "results": {"type": "array", "items": RESULT},
                    "properties": BAG,
                },
                "tool",
            ),
        },
    },
    "version",
    "runs",
)


@pytest.fixture
def report(audited: Audited) -> Report:
    """Return a report of everything there is: each severity, allowed, stale, not seen, hostile."""
    audited.broken_by(
        f"create table {TABLE} (organization_id uuid not null, id uuid not null)",
        f"grant select on {TABLE} to tenantry_app",
        "create policy shared on test_sets for select using (true)",
        "alter table test_runs no force row level security",
        "revoke select on pg_catalog.pg_index from public",
    )
    [found] = [
        each.fingerprint
        for each in audited.audit().findings
        if (each.check, each.object) == ("row_security_off", "public.test_runs")
    ]
    entries = [
        Allowance(
            check="row_security_off",
            object="public.test_runs",
            reason="until <Monday>",
            found=found,
        ),
        Allowance(check="row_security_off", object="public.gone", reason="was there"),
    ]
    report = audited.audit(baseline=Baseline(tuple(entries)))
    assert {finding.severity for finding in report.findings} == set(Severity)
    assert all((report.allowed, report.stale, report.unseen, report.unlisted, report.roles))
    return report


def test_json_holds_all_of_the_report(report: Report) -> None:
    """Whatever a program may want is there, and names are what they are."""
    document = json.loads(render_json(report))
    assert document["isolated"] is False
    assert document["verdict"] == report.verdict
    assert TABLE in {each["object"] for each in document["findings"]}
    for name in ("findings", "allowed", "stale", "unseen", "roles", "checks", "unlisted"):
        assert len(document[name]) == len(getattr(report, name)) > 0, name
    assert document["allowed"][0]["finding"]["severity"] == "error"


def test_sarif_keeps_the_published_schema(report: Report) -> None:
    """Each object has the properties of SARIF 2.1.0 and no other, and refers to what is there."""
    log = json.loads(render_sarif(report))
    validator = jsonschema_rs.Draft202012Validator(SARIF, validate_formats=True)
    assert [error.message for error in validator.iter_errors(log)] == []
    assert not validator.is_valid({**log, "version": "2.0.0"})
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(report.checks)
    assert all(rule["help"]["markdown"].startswith(f"# {rule['id']}\n") for rule in rules)
    results = run["results"]
    assert len(results) == len(report.findings) + len(report.allowed)
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in results)
    prints = {result["partialFingerprints"]["tenantryFinding/v1"] for result in results}
    assert len(prints) == len(results)


def test_sarif_says_what_is_allowed_and_what_was_not_seen(report: Report) -> None:
    """An allowed finding is suppressed with its reason; a blind check makes the run a failure."""
    run = json.loads(render_sarif(report))["runs"][0]
    (suppressed,) = [result for result in run["results"] if "suppressions" in result]
    assert suppressed["suppressions"] == [
        {"kind": "external", "status": "accepted", "justification": "until <Monday>"}
    ]
    (invocation,) = run["invocations"]
    assert invocation["executionSuccessful"] is False
    notified = {each["descriptor"]["id"] for each in invocation["toolExecutionNotifications"]}
    assert notified == {each.check for each in report.unseen}


def test_fingerprints_last(audited: Audited) -> None:
    """The same fault is the same result in the next run, whatever was found beside it."""

    def fingerprints() -> dict[str, str]:
        run = json.loads(render_sarif(audited.audit()))["runs"][0]
        return {
            result["locations"][0]["logicalLocations"][0]["name"]: result["partialFingerprints"][
                "tenantryFinding/v1"
            ]
            for result in run["results"]
        }

    audited.broken_by("alter table tests no force row level security")
    before = fingerprints()
    audited.broken_by("alter table test_sets no force row level security")
    after = fingerprints()
    assert set(after) - set(before) == {"public.test_sets"}
    assert after["public.tests"] == before["public.tests"]


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        (Severity.ERROR, {"error"}),
        (Severity.WARNING, {"error", "warning"}),
        (Severity.NOTE, {"error", "warning", "note"}),
        (None, set()),
    ],
)
def test_junit_has_a_case_for_each_check(
    report: Report, fail_on: Severity | None, failing: set[str]
) -> None:
    """A check fails from the severity that is asked for, and is skipped if it could not look."""
    root = Xml.fromstring(render_junit(report, fail_on))  # noqa: S314, its own output
    (suite,) = root.findall("testsuite")
    cases = suite.findall("testcase")
    assert [case.get("name") for case in cases] == list(report.checks)
    blind = {each.check for each in report.unseen if each.blind}
    assert {case.get("name") for case in cases if case.find("skipped") is not None} == blind
    failed = [case for case in cases if case.find("failure") is not None]
    expected = {each.check for each in report.findings if str(each.severity) in failing}
    assert {case.get("name") for case in failed} == expected
    for element in (root, suite):
        assert (element.get("tests"), element.get("failures"), element.get("skipped")) == (
            str(len(report.checks)),
            str(len(expected)),
            str(len(blind)),
        )
    said = "".join(case.findtext("system-out", "") for case in cases)
    assert "until <Monday>" in said


def test_names_cannot_pass_for_the_reports_own_words(report: Report) -> None:
    """At a terminal no name begins a line, moves the cursor or turns the direction of writing."""
    lines = render_table(report).splitlines()
    assert lines[-1] == report.verdict
    assert [line for line in lines if line.startswith(("ISOLATED", "NOT ISOLATED"))] == lines[-1:]
    assert r"<script>alert(1)</script>\nISOLATED: " in "\n".join(lines)
    assert all(line.isprintable() for line in lines)


def test_statements_are_one_line_to_copy(audited: Audited) -> None:
    """However narrow the terminal, a statement is not broken."""
    audited.broken_by("drop policy tests_tenant_wall on tests")
    report = audited.audit()
    assert f"        {report.findings[0].statement}" in render_table(report).splitlines()


def test_each_format_can_be_chosen(report: Report) -> None:
    """`render` knows all of them, and each ends in one line break."""
    for chosen in Format:
        text = render(report, chosen)
        assert text.endswith("\n")
        assert not text.endswith("\n\n")


def test_page_without_its_library_is_refused_by_name(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the extra; the other formats do not need it."""

    def absent(name: str) -> None:
        assert name == "jinja2"

    found: Callable[[str], object] = absent
    monkeypatch.setattr("tenantry.audit.formats.find_spec", found)
    with pytest.raises(ConfigurationError, match=r"pip install 'tenantry\[audit\]'"):
        render(report, Format.HTML)
    assert render(report, Format.SARIF)

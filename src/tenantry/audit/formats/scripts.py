"""The report as a script that mends what can be mended mechanically."""

import re
from collections.abc import Iterable
from typing import Final

from tenantry.audit.formats.escapes import visible
from tenantry.audit.report import Finding, Report

_LITERAL: Final = re.compile(
    r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|\$(\w*)\$.*?\$\1\$|--[^\n]*", re.DOTALL
)
# Refused inside a transaction block.
_ALONE: Final = re.compile(r"\b(concurrently|alter system|vacuum|(create|drop) database)\b")
# What has to be there before: columns before keys, and keys before the foreign keys to them.
_LATER: Final = (
    re.compile(r"\bset not null\b"),
    re.compile(r"\badd constraint\b.* (primary key|unique|exclude)\b|\bcreate unique index\b"),
    re.compile(r"\bforeign key\b"),
    re.compile(r"\bvalidate constraint\b"),
)


def render_script(report: Report) -> str:
    """Return the findings' statements in the order in which they can be run, in one transaction.

    What PostgreSQL refuses in a transaction comes after it. A finding that a person has to decide
    on is a comment.
    """
    mended = [finding for finding in report.findings if finding.statement is not None]
    decided = [finding for finding in report.findings if finding.statement is None]
    together = [finding for finding in mended if not _alone(finding)]
    lines = [
        f"-- Mends what `tenantry audit` found in the database {visible(report.database)},"
        f" PostgreSQL {visible(report.server_version)}:",
        f"--   {_number(together, 'finding')} in one transaction,"
        f" {len(mended) - len(together)} after it, {len(decided)} for a person to decide.",
        "-- Read it. Then run it as a superuser, or as the owner of what it changes:",
        '--   psql -X -v ON_ERROR_STOP=1 -f FILE "$URL"',
        "-- If a statement of the transaction fails, none of them has been applied.",
    ]
    if together:
        lines += [
            "",
            "begin;",
            "-- To wait for a table behind a long query would make everybody else wait too.",
            "set local lock_timeout = '10s';",
            *_statements(sorted(together, key=_position)),
            "",
            "commit;",
        ]
    lines += _statements(finding for finding in mended if _alone(finding))
    for finding in decided:
        lines += ["", *_comment(finding), f"--   To be decided: {visible(finding.remedy)}"]
    return "\n".join(lines) + "\n"


def _statements(findings: Iterable[Finding]) -> list[str]:
    """Return each statement once, below all findings that it mends."""
    found: dict[str, list[str]] = {}
    for finding in findings:
        found.setdefault(finding.statement or "", []).extend(_comment(finding))
    return [line for statement, says in found.items() for line in ("", *says, statement)]


def _comment(finding: Finding) -> list[str]:
    return [f"-- {visible(str(finding))}"]


def _code(finding: Finding) -> str:
    """Return the statement without its literals and names, which may say anything."""
    return " ".join(_LITERAL.sub("_", finding.statement or "").lower().split())


def _alone(finding: Finding) -> bool:
    return _ALONE.search(_code(finding)) is not None


def _position(finding: Finding) -> int:
    code = _code(finding)
    return max(
        (place for place, pattern in enumerate(_LATER, 1) if pattern.search(code)), default=0
    )


def _number(findings: list[Finding], of: str) -> str:
    return f"{len(findings)} {of}{'' if len(findings) == 1 else 's'}"

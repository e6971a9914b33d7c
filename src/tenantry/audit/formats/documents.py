"""The report as a JSON document."""

import json
from dataclasses import asdict
from typing import Any

from tenantry.audit.report import Report, Severity


def render_json(report: Report) -> str:
    """Return everything the report holds as one JSON object, with its verdict."""
    return json.dumps(
        {
            "isolated": not report.fails(),
            "verdict": report.verdict,
            **asdict(report, dict_factory=_plain),
        },
        indent=2,
        ensure_ascii=False,
    )


def _plain(items: list[tuple[str, Any]]) -> dict[str, Any]:
    return {name: str(value) if isinstance(value, Severity) else value for name, value in items}

"""The report for a person at a terminal."""

import io
import sys
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tenantry.audit.report import Finding, Report, Severity

_WIDTH: Final = 120
_STYLES: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "yellow",
    Severity.NOTE: "cyan",
}


def render_table(report: Report) -> str:
    """Return a table of the findings, below it what is allowed or unseen, and the verdict."""
    to_terminal = sys.stdout.isatty()
    console = Console(
        file=io.StringIO(),
        force_terminal=to_terminal,
        width=None if to_terminal else _WIDTH,
        highlight=False,
    )
    with console.capture() as capture:
        _print(console, report)
    return capture.get()


def _print(console: Console, report: Report) -> None:
    if report.findings:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_lines=True)
        table.add_column("severity", no_wrap=True)
        table.add_column("check", no_wrap=True)
        table.add_column("object", overflow="fold", ratio=2)
        table.add_column("what is wrong, and what mends it", overflow="fold", ratio=4)
        for finding in report.findings:
            table.add_row(
                Text(str(finding.severity), style=_STYLES[finding.severity]),
                Text(finding.check),
                Text(f"{finding.object_type} {finding.object}"),
                _told(finding),
            )
        console.print(table)
    for allowed in report.allowed:
        _say(console, "allowed", f"{allowed.finding}: {allowed.reason}", "dim")
    for stale in report.stale:
        entry = stale.allowance
        _say(console, "stale entry", f"{entry.check} on {entry.object}: {stale.why}", "yellow")
    for unseen in report.unseen:
        _say(console, "not seen", f"{unseen.check}: {unseen.why}", "bold yellow")
    console.print(
        Text(report.verdict, style="bold red" if report.fails() else "bold green"), soft_wrap=True
    )


def _told(finding: Finding) -> Text:
    told = Text(finding.problem)
    told.append(f"\n{finding.statement or finding.remedy}", style="dim")
    return told


def _say(console: Console, label: str, message: str, style: str) -> None:
    console.print(Text(f"{label}: {message}", style=style), soft_wrap=True)

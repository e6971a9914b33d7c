"""The report for a person at a terminal: a block for each finding, and the verdict last."""

import io
import sys
from typing import Final

from rich.console import Console
from rich.text import Text

from tenantry.audit.formats.escapes import visible
from tenantry.audit.report import Finding, Report, Severity

_STYLES: Final = {
    Severity.ERROR: "bold red",
    Severity.WARNING: "bold yellow",
    Severity.NOTE: "bold cyan",
}


def render_table(report: Report) -> str:
    """Return the findings, below them what is allowed or unseen, and the verdict.

    Lines are as long as what they say, so that a statement can be copied: the terminal wraps them.
    Nothing that the database chose begins a line, so that no name can pass for a verdict.
    """
    console = Console(
        file=io.StringIO(), force_terminal=sys.stdout.isatty(), highlight=False, soft_wrap=True
    )
    with console.capture() as capture:
        _print(console, report)
    return capture.get()


def _print(console: Console, report: Report) -> None:
    for finding in report.findings:
        console.print(_block(finding))
    for allowed in report.allowed:
        _say(console, "allowed", f"{allowed.finding}: {allowed.reason}", "dim")
    for stale in report.stale:
        entry = stale.allowance
        _say(console, "stale entry", f"{entry.check} on {entry.object}: {stale.why}", "yellow")
    for unseen in report.unseen:
        _say(console, "not seen", f"{unseen.check}: {unseen.why}", "bold yellow")
    for unlisted in report.unlisted:
        _say(console, "not listed", unlisted, "bold yellow")
    console.print(Text(report.verdict, style="bold red" if report.fails() else "bold green"))


def _block(finding: Finding) -> Text:
    block = Text()
    block.append(f"{finding.severity!s:<8}", style=_STYLES[finding.severity])
    block.append(f"{finding.object_type} {visible(finding.object)}", style="bold")
    block.append(f"  {finding.check}\n", style="dim")
    for label, text in (("", finding.problem), ("mend: ", finding.remedy)):
        block.append(f"        {label}{visible(text)}\n")
    for line in visible(finding.statement or "", keep="\n\t").splitlines():
        block.append(f"        {line}\n", style="green")
    return block


def _say(console: Console, label: str, message: str, style: str) -> None:
    console.print(Text(f"{label}: {visible(message)}", style=style))

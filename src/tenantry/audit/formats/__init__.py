"""Reports as text: one module for each format, each with a function of a report."""

from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from typing import cast

from tenantry.audit.formats.documents import render_json
from tenantry.audit.formats.junit import render_junit
from tenantry.audit.formats.sarif import render_sarif
from tenantry.audit.formats.scripts import render_script
from tenantry.audit.formats.terminal import render_table
from tenantry.audit.report import Report, Severity
from tenantry.exceptions import ConfigurationError

__all__ = [
    "Format",
    "render",
    "render_json",
    "render_junit",
    "render_sarif",
    "render_script",
    "render_table",
    "require",
]


class Format(StrEnum):
    """How a report is written."""

    TABLE = "table"
    JSON = "json"
    SARIF = "sarif"
    JUNIT = "junit"
    HTML = "html"


def require(chosen: Format) -> None:
    """Return if this machine can write the format; to be asked before a database is.

    Raises:
        ConfigurationError: the format is html and Jinja2 is not installed.
    """
    if chosen is Format.HTML and find_spec("jinja2") is None:
        raise ConfigurationError(
            "the audit's page is made by Jinja2, which is not installed: "
            "pip install 'tenantry[audit]', or choose another format"
        )


def render(report: Report, chosen: Format, fail_on: Severity | None = Severity.ERROR) -> str:
    """Return the report in this format, ending in a line break.

    Args:
        report: what was found.
        chosen: the format.
        fail_on: what counts as a failure where the format knows failures; None for nothing.

    Raises:
        ConfigurationError: the format is html and Jinja2 is not installed.
    """
    require(chosen)
    match chosen:
        case Format.TABLE:
            text = render_table(report)
        case Format.JSON:
            text = render_json(report)
        case Format.SARIF:
            text = render_sarif(report)
        case Format.JUNIT:
            text = render_junit(report, fail_on)
        case Format.HTML:
            # Jinja2 is optional.
            text = cast("str", import_module("tenantry.audit.formats.pages").render_html(report))
    return text.rstrip("\n") + "\n"

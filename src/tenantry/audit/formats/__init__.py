"""Reports as text: one module for each format, each with a function of a report."""

from collections.abc import Callable
from typing import Final

from tenantry.audit.formats.documents import render_json
from tenantry.audit.formats.tables import render_table
from tenantry.audit.report import Report

__all__ = ["FORMATS", "render_json", "render_table"]

FORMATS: Final[dict[str, Callable[[Report], str]]] = {
    "table": render_table,
    "json": render_json,
}

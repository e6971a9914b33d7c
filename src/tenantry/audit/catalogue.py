"""The checks there are: one SQL file each, and the page that explains it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from tenantry.audit.report import Severity
from tenantry.exceptions import ConfigurationError

# Facts in the order in which they need one another. What several checks need is computed once.
_FACTS: Final = (
    "expression",
    "settings",
    "reach",
    "memberships",
    "tables",
    "holders",
    "policies",
    "policy_functions",
    "foreign_keys",
    "shared_tables",
    "views",
    "definers",
)

_PACKAGE: Final = files("tenantry.audit")
_SEVERITY: Final = re.compile(r"'(error|warning|note)' as severity")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: its id, how bad its findings are, and the SELECT that finds them."""

    id: str
    severity: Severity
    query: str


@cache
def checks() -> tuple[Check, ...]:
    """Return all checks, the gravest first."""
    found = []
    for file in (_PACKAGE / "checks").iterdir():
        if file.name.endswith(".sql"):
            query = file.read_text(encoding="utf-8")
            stated = _SEVERITY.findall(query)
            if len(stated) != 1:
                raise ConfigurationError(f"check {file.name} must state its severity exactly once")
            found.append(
                Check(
                    id=file.name.removesuffix(".sql"),
                    severity=Severity.named(stated[0]),
                    query=query,
                )
            )
    return tuple(sorted(found, key=lambda check: (-check.severity, check.id)))


@cache
def transaction() -> str:
    """Return the statements that make the checks read the same whatever settings are stored."""
    return (_PACKAGE / "transaction.sql").read_text(encoding="utf-8")


@cache
def facts() -> Mapping[str, str]:
    """Return the queries that compute what the checks share, by name, in the order of their run."""
    return {name: (_PACKAGE / "facts" / f"{name}.sql").read_text("utf-8") for name in _FACTS}


@cache
def listing(name: str) -> str:
    """Return the query of a listing: `matrix`, `roles` or `definitions`."""
    return (_PACKAGE / f"{name}.sql").read_text(encoding="utf-8")


def summary(check_id: str) -> str:
    """Return what a check finds, in one paragraph: the beginning of its page.

    Raises:
        ConfigurationError: there is no such check.
    """
    return " ".join(explanation(check_id).split("\n\n")[2].split())


def explanation(check_id: str) -> str:
    """Return the page on a check, in Markdown: what it finds, why that matters, how to mend it.

    Raises:
        ConfigurationError: there is no such check.
    """
    known = [check.id for check in checks()]
    if check_id not in known:
        raise ConfigurationError(f"there is no check {check_id!r}; there are {', '.join(known)}")
    # A wheel carries docs/checks inside the package, a checkout has them where they are written.
    packed = _PACKAGE / "pages" / f"{check_id}.md"
    if packed.is_file():
        return packed.read_text(encoding="utf-8")
    page = Path(__file__).parents[3] / "docs" / "checks" / f"{check_id}.md"
    return page.read_text(encoding="utf-8")

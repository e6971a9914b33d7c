import re
from pathlib import Path

import pytest

from tenantry.audit import Check, checks, explanation
from tenantry.audit.catalogue import facts

ROOT = Path(__file__).parents[2]
SECTIONS = ["Why", "How it was exploited", "How to mend it", "Source"]
# Tests of the machinery, beside one file for each check.
OF_THE_MACHINERY = {
    "catalogue",
    "cli",
    "fix",
    "foreign",
    "formats",
    "html",
    "listing",
    "psql",
    "runner",
    "searches",
    "stored",
}

SECTION = re.compile(
    r"^-- Severity: (\w+)\.\n((?:\\set check_id \w+\n\\ir audit/check\.sql\n)+)", re.MULTILINE
)


def stems(folder: str, pattern: str) -> set[str]:
    return {path.stem for path in (ROOT / folder).glob(pattern)}


def test_each_check_has_its_page_its_test_and_its_place_in_the_script() -> None:
    """SQL files, pages, tests and the lines of audit.sql are the same set."""
    known = {check.id for check in checks()}
    assert stems("src/tenantry/audit/checks", "*.sql") == known
    assert stems("docs/checks", "*.md") == known
    tests = {stem.removeprefix("test_") for stem in stems("tests/audit", "test_*.py")}
    assert tests - OF_THE_MACHINERY == known
    script = (ROOT / "sql" / "audit.sql").read_text()
    placed = [
        (check_id, severity)
        for severity, lines in SECTION.findall(script)
        for check_id in re.findall(r"check_id (\w+)", lines)
    ]
    assert sorted(placed) == sorted((check.id, str(check.severity)) for check in checks())


def test_each_fact_is_computed_by_both_in_the_same_order() -> None:
    """Psql and Python prepare the same."""
    script = (ROOT / "sql" / "audit.sql").read_text()
    assert re.findall(r"facts/(\w+)\.sql", script) == list(facts())
    assert stems("src/tenantry/audit/facts", "*.sql") == set(facts())


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.id)
def test_check_is_one_plain_select(check: Check) -> None:
    """No psql command, no semicolon, no setting that may be missing, its own id, its header."""
    code = re.sub(r"--.*|'(?:[^']|'')*'", "", check.query)
    assert check.query.startswith("-- Purpose: ")
    assert "\n-- Run by:  " in check.query
    assert "\n-- Twice:   " in check.query
    assert "\\" not in code
    assert ";" not in code
    assert f"'{check.id}' as check_id" in check.query
    assert not re.search(r"current_setting\('tenantry\.\w+',", check.query)


@pytest.mark.parametrize("check", checks(), ids=lambda check: check.id)
def test_page_says_what_a_person_needs(check: Check) -> None:
    """What it finds, why that matters, how it was exploited, how to mend it, where it is from."""
    page = explanation(check.id)
    assert page.startswith(f"# {check.id}\n\nSeverity: {check.severity}.\n\n")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == SECTIONS
    assert all(len(part.strip()) > 20 for part in re.split(r"^## .+$", page, flags=re.MULTILINE))

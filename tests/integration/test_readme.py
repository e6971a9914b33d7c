"""What the documentation shows is what happens."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tenantry
from tenantry.testing import Database

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_first_example_prints_what_the_readme_says(
    fresh_database: Database, tmp_path: Path
) -> None:
    """A newcomer who copies the first example sees the lines printed below it."""
    script = tmp_path / "example.py"
    script.write_text(_blocks("python")[0])
    console = next(block for block in _blocks("console") if "example.py" in block)
    expected = [line for line in console.splitlines() if line and not line.startswith("$")]

    done = subprocess.run(
        [sys.executable, str(script)],
        env=os.environ
        | {"DATABASE_URL": fresh_database.app_url.render_as_string(hide_password=False)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.splitlines() == expected


def test_first_example_is_short() -> None:
    """The first example fits the first screen: twenty lines."""
    assert len(_blocks("python")[0].strip().splitlines()) <= 20


@pytest.mark.parametrize("document", sorted(ROOT.glob("*.md")) + sorted(ROOT.glob("docs/**/*.md")))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    """Each relative link of a document names a file that exists."""
    for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


@pytest.mark.parametrize(
    "variable",
    sorted(set(re.findall(r"^\| `([A-Z_]+)` \|", README, flags=re.MULTILINE))),
)
def test_each_variable_of_the_readme_is_explained_in_the_example_file(variable: str) -> None:
    """.env.example names every variable of the README's table."""
    assert variable in (ROOT / ".env.example").read_text()


def test_names_of_the_readme_exist() -> None:
    """Every error and function that the README names is importable from `tenantry`, or Celery's."""
    names = set(re.findall(r"`([A-Z][A-Za-z]+Error)", README)) - {"ChordError"} | {
        "create_tenant_engine",
        "get_tenant",
        "maintenance_session",
        "set_tenant",
        "tenant_scope",
    }
    assert names <= set(tenantry.__all__)

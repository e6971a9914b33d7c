"""What somebody has who installed the wheel and has no checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.embedded.binaries import find_binaries

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "files")
    return folder / "files"


def find_script(name: str, folder: Path, source: Path) -> Path:
    """Return what `tenantry sql` prints, run from these sources."""
    done = subprocess.run(
        [sys.executable, "-m", "tenantry.cli", "sql", name],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(done.stdout.removesuffix("\n"))


@pytest.mark.parametrize("name", ["roles", "audit", "leakproof"])
def test_scripts_are_found_in_wheel_and_checkout(
    installed: Path, tmp_path: Path, name: str
) -> None:
    """Both are the same file."""
    packed = find_script(name, tmp_path, installed)
    written = find_script(name, tmp_path, ROOT / "src")
    assert packed.is_relative_to(installed)
    assert written == ROOT / "sql" / f"{name}.sql"
    assert packed.read_text() == written.read_text()


def test_packed_audit_includes_its_checks(installed: Path, tmp_path: Path, app_url: URL) -> None:
    """The script finds the files that it includes by relative paths."""
    script = find_script("audit", tmp_path, installed)
    done = subprocess.run(
        [
            find_binaries().psql,
            *("-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", "skip=server_version_cve"),
            *("-v", "list=on", "-f", str(script), libpq_url(app_url)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "ISOLATED" in done.stdout

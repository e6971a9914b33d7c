"""Which PostgreSQL is taken, and what is said of one that cannot be."""

from pathlib import Path

import pytest

from tenantry.embedded.binaries import find_binaries, read_binaries
from tenantry.exceptions import EmbeddedServerError


def programs(folder: Path, script: str) -> Path:
    """Make a bin folder whose programs are the shell script."""
    folder.mkdir()
    for name in ("postgres", "initdb"):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


@pytest.mark.parametrize(
    ("said", "version", "major"),
    [
        ("postgres (PostgreSQL) 18.6", "18.6", 18),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", "15.18", 15),
        ("postgres (PostgreSQL) 19beta1", "19beta1", 19),
        ("postgres (PostgreSQL) 18devel", "18devel", 18),
    ],
)
def test_version_is_what_the_program_says(
    tmp_path: Path, said: str, version: str, major: int
) -> None:
    """Release, distribution and preview versions are understood."""
    binaries = read_binaries(programs(tmp_path / "bin", f"echo '{said}'"))
    assert (binaries.version, binaries.major) == (version, major)


@pytest.mark.parametrize(
    ("script", "complaint"),
    [
        ("echo 'postgres (PostgreSQL) 14.20'", "older than 15"),
        ("echo 'libfoo.so: cannot open' >&2; exit 127", "exit code 127, libfoo.so: cannot open"),
        ("echo hello", "exit code 0, hello"),
    ],
)
def test_unfit_override_is_an_error_that_names_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, complaint: str
) -> None:
    """A folder named by the user is used or refused, never quietly replaced by another."""
    monkeypatch.setenv("TENANTRY_POSTGRES_BIN", str(programs(tmp_path / "bin", script)))
    with pytest.raises(EmbeddedServerError, match=complaint) as caught:
        find_binaries()
    assert str(caught.value).startswith("TENANTRY_POSTGRES_BIN cannot be used")


def test_program_of_another_machine_is_an_error(tmp_path: Path) -> None:
    """A file the kernel cannot execute is reported as such."""
    folder = programs(tmp_path / "bin", "")
    (folder / "postgres").write_bytes(b"\x7fELF not for this machine")
    with pytest.raises(EmbeddedServerError, match="does not run"):
        read_binaries(folder)


def test_missing_programs_are_named(tmp_path: Path) -> None:
    """The message says which programs the folder lacks."""
    with pytest.raises(EmbeddedServerError, match="no executable postgres and no initdb"):
        read_binaries(tmp_path)


def test_missing_psql_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    """A server without client programs runs, and only psql is refused."""
    binaries = read_binaries(programs(tmp_path / "bin", "echo 'postgres (PostgreSQL) 18.6'"))
    with pytest.raises(EmbeddedServerError, match="has no psql"):
        _ = binaries.psql

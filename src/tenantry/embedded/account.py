"""The operating system's user that a server runs as."""

import os
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

from tenantry.exceptions import EmbeddedServerError

# The server and its children see no variable of the caller, so that neither PGDATA nor a locale
# of the person who starts it changes what is started.
_ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_PASSED_ON = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")


@dataclass(frozen=True, slots=True)
class Account:
    """A user that PostgreSQL agrees to run as, which root never is."""

    name: str
    uid: int
    gid: int

    @classmethod
    def current(cls) -> Self:
        """Return this process's own user or, for root, `postgres` if it exists, else `nobody`.

        Raises:
            EmbeddedServerError: the process is root's and the machine has neither user.
        """
        if os.geteuid() != 0:
            return cls(str(os.geteuid()), os.geteuid(), os.getegid())
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid)
        raise EmbeddedServerError(
            "PostgreSQL does not run as root, and this machine has neither a user 'postgres' nor "
            "'nobody' to run it as: create one (useradd --system postgres), or run as another user"
        )

    @classmethod
    def owning(cls, folder: Path) -> Self:
        """Return the user that an existing data folder belongs to.

        Raises:
            EmbeddedServerError: the folder is root's, or this process may not act as its owner.
        """
        entry = folder.stat()
        if entry.st_uid == 0 or os.geteuid() not in {0, entry.st_uid}:
            raise EmbeddedServerError(
                f"{folder} belongs to user {entry.st_uid} and this process runs as "
                f"{os.geteuid()}: run as that user, or name another home in TENANTRY_HOME"
            )
        return cls(str(entry.st_uid), entry.st_uid, entry.st_gid)

    @property
    def switches(self) -> bool:
        """Tell whether a program has to be started as another user than this process's."""
        return os.geteuid() == 0

    def run(
        self,
        command: Sequence[str | Path],
        *,
        folder: Path,
        stderr: int | IO[bytes] = subprocess.PIPE,
        new_session: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user in the folder, and wait for its end.

        Raises:
            OSError: the program cannot be executed by this user.
        """
        return subprocess.run(
            command,
            cwd=folder,
            env=_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            encoding="utf-8",
            errors="replace",
            user=self.uid if self.switches else None,
            group=self.gid if self.switches else None,
            extra_groups=[] if self.switches else None,
            umask=0o077,
            start_new_session=new_session,
            check=False,
        )

    def own(self, path: Path | int) -> None:
        """Give a file or folder to this user, if this process may act for others at all."""
        if self.switches:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, folder: Path) -> bool:
        """Tell whether this user reaches the folder, by going there as this user."""
        here = Path(os.sep)
        return self.run(["/bin/sh", "-c", 'cd "$1"', "sh", folder], folder=here).returncode == 0

    def can_execute(self, program: Path) -> bool:
        """Tell whether this user can run the program, by running it for its version."""
        try:
            return self.run([program, "--version"], folder=Path(os.sep)).returncode == 0
        except OSError:
            return False


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    return _ENVIRONMENT | {name: environ[name] for name in _PASSED_ON if name in environ}

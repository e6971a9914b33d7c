"""The folder that a server belongs to: its lock, its record and the place of its data."""

import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from tenantry.embedded.account import Account
from tenantry.exceptions import EmbeddedServerError

# Where root keeps the data of a home that the server's user cannot reach.
ROOT_STORE: Final = Path("/var/lib/tenantry")
LOCK_SECONDS: Final = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What a home remembers of its server of one major version; never shown, it has passwords."""

    folder: str
    passwords: dict[str, str]
    port: int | None = None
    ready: bool = False

    def __repr__(self) -> str:
        return f"Record(folder={self.folder!r}, port={self.port}, ready={self.ready})"


class Home:
    """A private folder (mode 0700) that no user but its owner can look into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.expanduser().resolve()

    @property
    def _lock_file(self) -> Path:
        return self.folder / "server.lock"

    def exists(self) -> bool:
        """Tell whether a server was ever started in this home.

        Raises:
            EmbeddedServerError: the home is another user's.
        """
        try:
            self._lock_file.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise _unusable(self.folder, error) from error
        return True

    def create(self, account: Account) -> None:
        """Make the folder, private to the user the server runs as if that user can reach it.

        Raises:
            EmbeddedServerError: the folder holds other things, or cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self.exists():
                # Another starter may have made the lock since.
                if any(self.folder.iterdir()) and not self.exists():
                    raise EmbeddedServerError(
                        f"{self.folder} is not empty and was not made for a server: name an empty "
                        "or a new folder in TENANTRY_HOME"
                    )
                self.folder.chmod(0o700)
                if account.can_enter(self.folder.parent):
                    account.own(self.folder)
                os.close(self._open(self._lock_file, os.O_RDWR | os.O_CREAT))
            ignore = self._open(self.folder / ".gitignore", os.O_WRONLY | os.O_CREAT)
            with os.fdopen(ignore, "w", encoding="utf-8") as file:
                file.write("*\n")
        except OSError as error:
            raise _unusable(self.folder, error) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from starting, stopping or removing the server meanwhile.

        The lock dies with the process that holds it.

        Raises:
            EmbeddedServerError: another process has held the lock for three minutes.
        """
        try:
            lock = self._open(self._lock_file, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise _unusable(self.folder, error) from error
        try:
            deadline = time.monotonic() + LOCK_SECONDS
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EmbeddedServerError(
                            f"another process has held {self._lock_file} for {LOCK_SECONDS} s: "
                            "end that process and try again"
                        ) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(lock)

    def majors(self) -> list[int]:
        """Return the major versions this home has a record of."""
        names = (path.stem.removeprefix("pg") for path in self.folder.glob("pg*.json"))
        return sorted(int(name) for name in names if name.isdecimal())

    def record(self, major: int) -> Record | None:
        """Return what is remembered; None if nothing is, or a crash left it half-written.

        Raises:
            EmbeddedServerError: the file cannot be read by this user.
        """
        try:
            with os.fdopen(self._open(self._record_file(major), os.O_RDONLY), "rb") as file:
                return Record(**json.load(file))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return None
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def remember(self, major: int, record: Record) -> None:
        """Write the record, whole or not at all."""
        path = self._record_file(major)
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(self._open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(json.dumps(asdict(record)).encode())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def forget(self, major: int) -> None:
        """Remove the record and the log."""
        self._record_file(major).unlink(missing_ok=True)
        self.log_file(major).unlink(missing_ok=True)

    def secret(self, name: str) -> str:
        """Return what is kept under this name, a random text if there is nothing yet."""
        path = self.folder / f"{name}.secret"
        try:
            with os.fdopen(
                self._open(path, os.O_RDWR | os.O_CREAT), "r+", encoding="ascii"
            ) as file:
                kept = file.read().strip()
                if not kept:
                    kept = secrets.token_hex(32)
                    file.seek(0)
                    file.write(kept)
                return kept
        except OSError as error:
            raise _unusable(self.folder, error) from error

    def area(self, major: int, record: Record) -> Path:
        """Return the folder that holds the data, as recorded.

        Raises:
            EmbeddedServerError: the record names a folder that this home can never have had.
        """
        area = self.folder / record.folder
        if area not in {self.folder / f"pg{major}", self._outside(major)}:
            raise EmbeddedServerError(
                f"{self._record_file(major)} says the data is in {area}, which belongs to a home "
                f"at another path: move {self.folder} back to where it was made, or remove it "
                "and start anew"
            )
        return area

    def choose_area(self, major: int, account: Account) -> str:
        """Return a folder for the data that the server's user can really reach.

        It lies in the home or, where root keeps the home in a place of its own, in
        `/var/lib/tenantry`; no existing folder is opened to anybody.

        Raises:
            EmbeddedServerError: neither can be reached.
        """
        if account.can_enter(self.folder):
            return f"pg{major}"
        outside = self._outside(major)
        try:
            for folder in (ROOT_STORE, outside.parent):
                if not folder.exists():
                    folder.mkdir(mode=0o711, parents=True)
                    folder.chmod(0o711)
                entry = folder.lstat()
                if not stat.S_ISDIR(entry.st_mode) or entry.st_uid != 0 or entry.st_mode & 0o022:
                    raise EmbeddedServerError(
                        f"{folder} must be a folder that only root can write: remove it"
                    )
        except OSError as error:
            raise _unusable(outside.parent, error) from error
        if not account.can_enter(outside.parent):
            raise EmbeddedServerError(
                f"the user {account.name!r}, which runs the server because root must not, reaches "
                f"neither {self.folder} nor {outside.parent}: name a home in a folder open to that "
                "user in TENANTRY_HOME"
            )
        return str(outside)

    def leave(self, area: Path) -> None:
        """Remove the now empty folder outside the home, if the data was there."""
        if area.parent != self.folder and area.parent.exists() and not any(area.parent.iterdir()):
            area.parent.rmdir()

    def log_file(self, major: int) -> Path:
        """Return the path of the server's log."""
        return self.folder / f"pg{major}.log"

    def open_log(self, major: int) -> int:
        """Return a descriptor that appends to the log; a log of over 10 MB is set aside first."""
        path = self.log_file(major)
        if path.exists() and path.stat().st_size > 10_000_000:
            path.replace(path.with_suffix(".log.1"))
        return self._open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def _record_file(self, major: int) -> Path:
        return self.folder / f"pg{major}.json"

    def _outside(self, major: int) -> Path:
        digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:24]
        return ROOT_STORE / digest / f"pg{major}"

    def _open(self, path: Path, flags: int) -> int:
        # Root may be writing into a folder of another user: a symbolic link there is never
        # followed, and what is made belongs to the folder's owner.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        if flags & os.O_CREAT and os.geteuid() == 0:
            owner = self.folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        return descriptor


def _unusable(folder: Path, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"the server's home {folder} cannot be used: {error.strerror} ({error.filename}). Name a "
        "folder that you own in TENANTRY_HOME"
    )

"""Removes a throw-away server once the process that started it is gone, however it ended."""

import shutil
import subprocess
import sys
from pathlib import Path

from tenantry.embedded.server import EmbeddedServer
from tenantry.exceptions import EmbeddedServerError, TenancyError


class Caretaker:
    """A process that outlives its parent just long enough to remove the server of a home folder.

    It reads from a pipe that nobody writes to: the operating system closes the pipe when the parent
    ends, by SIGKILL too.
    """

    def __init__(self, home: Path) -> None:
        """Watch over the home from now on."""
        self._home = home
        # In a session of its own, so that an interrupt from the keyboard does not end it.
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def release(self) -> None:
        """Have the server removed now, and wait until it is.

        Raises:
            EmbeddedServerError: it could not be stopped, or its data not removed.
        """
        _, said = self._process.communicate()
        if self._process.returncode != 0:
            raise EmbeddedServerError(
                f"the test server in {self._home} could not be removed: {said.strip()}"
            )


def main() -> None:
    """Wait for the end of standard input, then remove the server of the home that is named."""
    home = Path(sys.argv[1])
    sys.stdin.read()
    try:
        EmbeddedServer(home).reset()
    except TenancyError as error:
        sys.exit(str(error))
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    main()

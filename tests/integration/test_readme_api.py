"""`make up` and what README.md says to do then, run as they are printed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.fixtures.assay_workers import wait_for

from tenantry.embedded import EmbeddedServer

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SECTION = README.partition("\n## API\n")[2].partition("\n## ")[0]


@dataclass(frozen=True, slots=True)
class Up:
    """A running `make up`, by its program."""

    process: subprocess.Popen[str]
    home: Path
    output: Path
    mark: str

    @property
    def exports(self) -> str:
        """Return the line that it prints to be pasted."""
        (line,) = re.findall(r"^  (export API=.*)$", self.output.read_text(), flags=re.MULTILINE)
        return str(line)

    def processes(self) -> list[int]:
        """Return the processes that it has started, whatever has become of their parents."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
        return found

    def expect_end(self) -> None:
        """Wait until it has ended as it should: in order, with nothing left running."""
        assert self.process.wait(timeout=120) == 0, self.output.read_text()
        wait_for(lambda: self.processes() == [], seconds=60)
        assert not EmbeddedServer(self.home).status().running


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Return a home that no server was in; what is left in it is removed."""
    home = tmp_path / "home"
    yield home
    EmbeddedServer(home).reset()


@contextmanager
def up(home: Path, **variables: str) -> Iterator[Up]:
    """Run the program in the home."""
    output, mark = home.with_name("output"), f"mark-{uuid.uuid4().hex}"
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("ASSAY_", "CELERY_", "TENANTRY_", "BROKER_", "RESULT_", "PORT"))
        and not name.endswith("DATABASE_URL")
    }
    kept = {k: v for k, v in os.environ.items() if k == "TENANTRY_POSTGRES_BIN"}
    environ = inherited | kept | {"TENANTRY_HOME": str(home), "TEST_MARK": mark} | variables
    with output.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "assay.up"],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    running = Up(process, home, output, mark)
    try:
        yield running
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=120)


def await_ready(running: Up) -> None:
    """Wait until it has printed what to do."""
    deadline = time.monotonic() + 120
    while "Ctrl-C stops" not in running.output.read_text():
        assert running.process.poll() is None, running.output.read_text()
        assert time.monotonic() < deadline, running.output.read_text()
        time.sleep(0.1)


def dialogues() -> list[tuple[str, str]]:
    """Return the section's consoles after the first: the script typed, and what is printed."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", SECTION, flags=re.DOTALL)[1:]:
        typed, printed, going_on = [], [], False
        for line in block.splitlines():
            if going_on or line.startswith(("$ ", "> ")):
                typed.append(line if going_on else line[2:])
                going_on = line.endswith("\\")
            else:
                printed.append(line)
        found.append(("\n".join(typed), "\n".join(printed)))
    return found


def typed(script: str, running: Up | None = None) -> str:
    """Type this into a shell, and return what it prints."""
    done = subprocess.run(
        ["/usr/bin/env", "bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    told = running.output.read_text() if running else ""
    assert done.returncode == 0, done.stdout + done.stderr + told
    return done.stdout


def test_readme_works_as_printed(home: Path) -> None:
    """On a fresh machine each line does what the section says, and Ctrl-C ends all of it."""
    with up(home) as running:
        await_ready(running)
        (first, told), (second, refused) = dialogues()
        printed = typed(f"{running.exports}\n{first}\necho ---\n{second}", running)
        seen, _, denied = printed.partition("---\n")
        summary, _, results = seen.partition("\n")
        assert summary == told.splitlines()[0], running.output.read_text()
        assert results.count("'verdict': 'pass'") == 6
        assert denied.strip() == refused
        for line in ("404 Not Found", "Traceback"):
            assert line not in running.output.read_text()
        # uvicorn, Celery with its beat and two processes of its pool, and the program itself.
        assert len(running.processes()) >= 6
        # A terminal's Ctrl-C reaches the whole group.
        os.killpg(running.process.pid, signal.SIGINT)
        running.expect_end()


def test_second_start_finds_what_the_first_made(home: Path) -> None:
    """The same home has the same organizations and sets, and the first start's token works on."""
    count = 'curl -s -H "Authorization: Bearer $HARBOUR" "$API/test_sets"'
    with up(home) as running:
        await_ready(running)
        first = running.exports
        before = typed(f"{first}\n{count}")
        running.process.terminate()
        running.expect_end()
    with up(home) as running:
        await_ready(running)
        (address,) = re.findall(r"API=\S+", running.exports)
        after = typed(f"{first}\nexport {address}\n{count}")
    assert len(json.loads(before)["items"]) == 1
    assert after == before


def test_port_that_is_taken_is_told(home: Path) -> None:
    """PORT is taken at its word: one that is taken is an error, and nothing is left running."""
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        with up(home, PORT=port) as running:
            assert running.process.wait(timeout=120) == 1
            told = f"error: port {port}: Address already in use; PORT=… names another one"
            assert told in running.output.read_text()
            wait_for(lambda: running.processes() == [], seconds=60)


def test_help_starts_nothing(tmp_path: Path) -> None:
    """It says what would be started, and how the port is chosen; what is unknown is an error."""
    for argument, status, words in (
        ("--help", 0, "PORT in the environment"),
        ("--fast", 2, "usage"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "assay.up", argument],
            env=os.environ | {"TENANTRY_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status
        assert words in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []

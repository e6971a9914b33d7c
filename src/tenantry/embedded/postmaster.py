"""The server's process: recognised, launched, awaited and stopped."""

import os
import re
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tenantry.embedded.account import Account
from tenantry.exceptions import EmbeddedServerError

HOST: Final = "127.0.0.1"
START_SECONDS: Final = 90
STOP_SECONDS: Final = 30

# "$!" is printed by a shell that is gone at once, so that the server is nobody's child: it leaves
# no zombie in a long-lived process and outlives a short-lived one.
_DETACHED = '"$@" </dev/null >&2 & echo $!'

_PROC = Path("/proc/self/cwd").exists()


@dataclass(frozen=True, slots=True)
class Postmaster:
    """A living server process, as its own `postmaster.pid` describes it."""

    pid: int
    port: int | None
    ready: bool


def find_postmaster(data: Path) -> Postmaster | None:
    """Return the process that serves the data folder, None if there is none.

    A `postmaster.pid` left by a crash is not believed, even if its number now belongs to another
    process.

    Raises:
        EmbeddedServerError: this user may not look into the data folder.
    """
    try:
        lines = (data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise EmbeddedServerError(
            f"{data} cannot be read: {error.strerror}. Run as the user who started the server"
        ) from error
    pid = lines[0].strip()
    if not pid.isdecimal() or not serves(int(pid), data):
        return None
    port = lines[3].strip() if len(lines) > 3 else ""
    ready = len(lines) > 7 and lines[7].strip() == "ready"
    return Postmaster(int(pid), int(port) if port.isdecimal() else None, ready)


def serves(pid: int, data: Path) -> bool:
    """Tell whether the process lives and works in this data folder."""
    if _PROC:
        # A server changes into its data folder; a zombie has no working directory any more.
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == data.resolve()
        except OSError:
            return False
    answer = subprocess.run(
        ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    return str(data) in answer.stdout


def launch(
    account: Account,
    programs: Path,
    data: Path,
    *,
    log: Path,
    log_descriptor: int,
    port: int | None,
    durable: bool,
) -> Postmaster:
    """Start a server on 127.0.0.1 alone and return once it accepts connections.

    The wanted port is taken if it is free, another free one otherwise.

    Raises:
        EmbeddedServerError: the server ended at once or was not ready in time; the message has
            the last lines of its log.
    """
    deadline = time.monotonic() + START_SECONDS
    _drop_stale_pid_file(data)
    while True:
        attempt_starts = log.stat().st_size
        port = _free_port(port)
        pid = _spawn(account, programs, data, log_descriptor, port, durable=durable)
        while time.monotonic() < deadline:
            found = find_postmaster(data)
            if found is not None and found.ready:
                return found
            if not serves(pid, data):
                break
            time.sleep(0.01)
        said = _log_since(log, attempt_starts)
        if time.monotonic() >= deadline:
            raise EmbeddedServerError(
                f"PostgreSQL was not ready after {START_SECONDS} s; it may still be recovering: "
                f"look at {log}, then try again\n{_tail(said)}"
            )
        if "could not bind" in said or "Address already in use" in said:
            port = None
        elif "is still in use" in said or "already exists" in said:
            # The children of a killed server are about to notice that it is gone.
            time.sleep(0.1)
        else:
            raise EmbeddedServerError(
                f"PostgreSQL in {programs} did not start on {data}. Its log {log} ends with the "
                f"reason; `tenantry db reset` begins anew with no data\n{_tail(said)}"
            )


def stop_postmaster(data: Path) -> None:
    """Stop the server of the data folder, if one runs, and return when it is gone.

    Connections are ended and what they committed is kept (a "fast" shutdown); a server that does
    not obey in half a minute is stopped as a crash would stop it, and recovers at its next start.

    Raises:
        EmbeddedServerError: it survived even that.
    """
    found = find_postmaster(data)
    if found is None:
        return
    for number in (signal.SIGINT, signal.SIGQUIT):
        try:
            os.kill(found.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline:
            if not serves(found.pid, data):
                return
            time.sleep(0.01)
    raise EmbeddedServerError(
        f"the server on {data} (process {found.pid}) does not stop: end it with kill -KILL "
        f"{found.pid}"
    )


def _spawn(
    account: Account, programs: Path, data: Path, log: int, port: int, *, durable: bool
) -> int:
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "max_connections": "200",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
        "log_min_messages": "warning",
        "log_line_prefix": "%m [%p] %q%u@%d ",
    }
    if not durable:
        # synchronous_commit stays on: without it a killed server would lose commits as well.
        settings |= {"fsync": "off", "full_page_writes": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    server: list[str | Path] = [programs / "postgres", "-D", data, *options]
    command = ["/bin/sh", "-c", _DETACHED, "sh", *server]
    answer = account.run(command, folder=data, stderr=log, new_session=True)
    if not answer.stdout.strip().isdecimal():
        raise EmbeddedServerError(
            f"/bin/sh could not start {programs / 'postgres'}: exit code {answer.returncode}"
        )
    return int(answer.stdout)


def _drop_stale_pid_file(data: Path) -> None:
    # PostgreSQL removes the file itself, unless its number has gone to another process of the
    # same user: then it would refuse to start for as long as that one lives. Two servers on one
    # folder are still excluded, by the shared memory segment.
    if find_postmaster(data) is None:
        (data / "postmaster.pid").unlink(missing_ok=True)


def _free_port(wanted: int | None) -> int:
    for port in (wanted, 0) if wanted else (0,):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise EmbeddedServerError(f"no free port on {HOST}: end some of the machine's connections")


def _log_since(log: Path, position: int) -> str:
    with log.open("rb") as file:
        file.seek(position)
        return file.read().decode(errors="replace")


def _tail(said: str) -> str:
    lines = [re.sub(r"[^\x20-\x7e\u00a0-\uffff]", "?", line) for line in said.splitlines()[-12:]]
    return "\n".join(f"  {line}" for line in lines) or "  (the log is empty)"

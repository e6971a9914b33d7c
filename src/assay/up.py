"""`make up`: database, migrations, API, worker and two organizations with tokens, until Ctrl-C.

For development: the worker may call the demonstration's own application on 127.0.0.1, which
knows what is asked in the organizations' tests, and answers mostly right.
"""

import argparse
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Final

import httpx
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Engine, select

from assay.config import EndpointPolicy
from assay.database import SessionLocal
from assay.demo.scene import ATTACKER, VICTIM, Player, cast_player, import_set
from assay.demo_server import Application, Question, serving
from assay.exceptions import AssayError
from assay.models import Endpoint, Test, TestConfiguration, TestSet, User
from assay.services.configurations import add_configuration
from assay.services.targets import create_endpoint
from assay.services.tokens import issue_token
from tenantry import (
    ConfigurationError,
    Settings,
    TenancyError,
    create_maintenance_engine,
    tenant_scope,
)
from tenantry.embedded import default_server
from tenantry.environment import maintenance_url

ROOT: Final = Path(__file__).resolve().parents[2]
HOST: Final = "127.0.0.1"
PORT: Final = 8000

# The documented switches of development; in production no private address is called.
ALLOWED: Final = {"ASSAY_HTTP_HOSTS": HOST, "ASSAY_ALLOWED_NETWORKS": f"{HOST}/32"}

_ANSWER_SECONDS: Final = 5
_START_SECONDS: Final = 90
_STOP_SECONDS: Final = 20
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class UpError(Exception):
    """A part did not start, or ended by itself."""


class Interruption:
    """Whether somebody wants an end, and whether at once.

    A signal raises nothing: what is half started would be left behind.
    """

    def __init__(self) -> None:
        """Take the signals of Ctrl-C, `kill` and a terminal that is closed."""
        self.signals = 0
        for number in _SIGNALS:
            signal.signal(number, self._take)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.signals += 1


class KnowingApplication(Application):
    """An application under test that knows the tests of organizations, by path."""

    def __init__(self, players: Mapping[str, uuid.UUID]) -> None:
        """Keep whose tests are known at which path."""
        super().__init__(slowness=2 * _ANSWER_SECONDS)
        self._players = dict(players)
        for path in players:
            self.learn(path, [])

    def answer(self, path: str, prompt: str) -> tuple[int, bytes]:
        """Return status and body, in good time or not."""
        organization_id = self._players.get(path)
        if organization_id is not None and prompt not in self.questions[path]:
            query = select(Test.prompt, Test.expected, Test.metric).where(Test.prompt == prompt)
            with tenant_scope(organization_id, sessions=SessionLocal) as session:
                row = session.execute(query.limit(1)).one_or_none()
            if row is not None:
                self.questions[path][prompt] = Question(*row)
        return Application.answer(self, path, prompt)


@dataclass(frozen=True, slots=True)
class Guest:
    """An organization, and what its user needs to begin."""

    name: str
    variable: str
    token: str


def main(arguments: list[str] | None = None) -> int:
    """Return 0 once a signal has ended it, 1 if a part failed."""
    argparse.ArgumentParser(
        prog="python -m assay.up",
        description=__doc__,
        epilog=f"PORT in the environment is the API's; without it {PORT}, or a free one.",
    ).parse_args(arguments)
    interruption = Interruption()
    try:
        with contextlib.ExitStack() as stack:
            _run(stack, interruption)
    except (UpError, AssayError, TenancyError, CommandError) as error:
        _say(f"error: {error}")
        return 1
    return 0


def _run(stack: contextlib.ExitStack, interruption: Interruption) -> None:
    settings = Settings.from_environment()
    # First of all: that a port is taken is soon said.
    listener = stack.enter_context(_listener(os.environ.get("PORT", "")))
    stack.enter_context(_database(settings))
    command.upgrade(Config(ROOT / "alembic.ini"), "head")
    players = _players(settings)
    application = KnowingApplication({_path(player): player.id for player in players})
    bot = stack.enter_context(serving(application))
    guests = [_welcome(player, f"{bot}{_path(player)}") for player in players]
    if interruption.signals:
        return
    address = f"http://{HOST}:{listener.getsockname()[1]}"
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="assay-")))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environ = _worker_settings(folder) | os.environ | ALLOWED | {"PATH": path}
    api = _running(
        _api_command(listener.fileno()), environ, interruption, descriptors=(listener.fileno(),)
    )
    worker = _running(["/bin/sh", str(ROOT / "docker" / "worker.sh")], environ, interruption)
    processes = {
        "the API": stack.enter_context(api),
        "the worker": stack.enter_context(worker),
    }
    _await(address, processes, interruption)
    if not interruption.signals:
        _introduce(address, f"{bot}{_path(players[0])}", guests)
    while not interruption.signals:
        _check(processes)
        time.sleep(0.1)
    _say("stopping")


@contextlib.contextmanager
def _database(settings: Settings) -> Iterator[None]:
    """Run the embedded server unless another is configured; one that ran before is left running."""
    if settings.database_url is not None:
        yield
        return
    server = default_server()
    ran = server.status().running
    _say("starting PostgreSQL, in " + str(server.home))
    server.start()
    try:
        yield
    finally:
        if not ran:
            server.stop()


def _players(settings: Settings) -> list[Player]:
    """Return the organizations of the demonstration, with a set each."""
    maintenance: Engine | None = None
    with contextlib.suppress(ConfigurationError):
        # Without a login for work across tenants each start makes new ones.
        maintenance = create_maintenance_engine(maintenance_url(settings))
    try:
        players = [cast_player(script, maintenance) for script in (ATTACKER, VICTIM)]
    finally:
        if maintenance is not None:
            maintenance.dispose()
    for player in players:
        import_set(player)
    return players


def _path(player: Player) -> str:
    return f"/{player.name.split()[-1].lower()}"


def _welcome(player: Player, url: str) -> Guest:
    """Give an organization a token, and a configuration whose endpoint is at this URL by now."""
    own = ipaddress.ip_network(f"{HOST}/32")
    policy = EndpointPolicy(http_hosts=frozenset({HOST}), networks=(own,))
    name = "Demonstration"
    with tenant_scope(player.id, sessions=SessionLocal) as session:
        endpoint = session.scalars(select(Endpoint).where(Endpoint.name == name)).one_or_none()
        if endpoint is None:
            endpoint = create_endpoint(
                session, name, url, timeout_seconds=_ANSWER_SECONDS, policy=policy
            )
        endpoint.url = url
        made = select(TestConfiguration).where(TestConfiguration.name == name)
        if session.scalars(made).one_or_none() is None:
            chosen = select(TestSet.id).where(TestSet.name == player.script.test_set)
            add_configuration(
                session,
                name,
                test_set_id=session.scalars(chosen).one(),
                endpoint_id=endpoint.id,
            )
        user_id = session.scalars(select(User.id).order_by(User.email).limit(1)).one()
        issued = issue_token(session, user_id, "make up", lifetime=timedelta(days=1))
        token = issued.text
    return Guest(player.name, _path(player)[1:].upper(), token)


@contextlib.contextmanager
def _listener(wanted: str) -> Iterator[socket.socket]:
    """Listen on the port that is wanted, or on 8000, or where that is taken on a free one.

    Raises:
        UpError: what is wanted is no port, or taken.
    """
    if wanted and not (wanted.isascii() and wanted.isdecimal() and int(wanted) < 2**16):
        raise UpError(f"PORT is {wanted!r}: it must be a number up to 65535")
    with contextlib.closing(socket.socket()) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, int(wanted or PORT)))
        except OSError as error:
            if wanted or error.errno != errno.EADDRINUSE:
                raise UpError(
                    f"port {wanted or PORT}: {error.strerror}; PORT=… names another one"
                ) from error
            listener.bind((HOST, 0))
        listener.listen(128)
        yield listener


def _api_command(descriptor: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", "assay.app:app", f"--fd={descriptor}"),
        *("--log-level=warning", "--timeout-graceful-shutdown=5"),
    ]


def _worker_settings(folder: Path) -> dict[str, str]:
    """Return what docker/worker.sh reads; what the environment says already stays."""
    return {
        "CELERY_WORKER_CONCURRENCY": "2",
        "CELERY_WORKER_LOGLEVEL": "WARNING",
        "CELERY_WORKER_OPTS": "--without-heartbeat --without-gossip --without-mingle --beat "
        f"--schedule={folder / 'schedule'}",
    }


@contextlib.contextmanager
def _running(
    arguments: list[str],
    environ: Mapping[str, str],
    interruption: Interruption,
    descriptors: tuple[int, ...] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program in a group of its own, which Ctrl-C does not reach; none of it is left."""
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.DEVNULL,
        env=dict(environ),
        pass_fds=descriptors,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.terminate()
        asked = interruption.signals
        deadline = time.monotonic() + _STOP_SECONDS
        # Whoever asks a second time does not want to wait for what is under way.
        while process.poll() is None and time.monotonic() < deadline:
            if interruption.signals > max(asked, 1):
                break
            time.sleep(0.05)
        # It leads its group, so that its children are named by it even after its end.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await(
    address: str, processes: Mapping[str, subprocess.Popen[bytes]], interruption: Interruption
) -> None:
    """Return when the API says that it is ready, or when somebody wants an end.

    Raises:
        UpError: it does not, in good time.
    """
    deadline = time.monotonic() + _START_SECONDS
    answer = "nothing"
    with httpx.Client(trust_env=False, timeout=5) as client:
        while time.monotonic() < deadline and not interruption.signals:
            _check(processes)
            try:
                response = client.get(f"{address}/readyz")
            except httpx.TransportError:
                time.sleep(0.1)
                continue
            if response.status_code == 200:
                return
            answer = response.text
            time.sleep(0.2)
    if not interruption.signals:
        raise UpError(f"the API is not ready after {_START_SECONDS} s, it answers {answer}")


def _check(processes: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for name, process in processes.items():
        if process.poll() is not None:
            raise UpError(f"{name} has ended by itself, with code {process.returncode}")


def _introduce(address: str, bot: str, guests: list[Guest]) -> None:
    tokens = " ".join(f"{guest.variable}={guest.token}" for guest in guests)
    first = guests[0]
    _say(
        f"""
The API is on {address}, its documentation on {address}/docs

{os.linesep.join(f"  {guest.name:14} {guest.token}" for guest in guests)}

In another terminal:

  export API={address} BOT={bot} {tokens}
  curl -H "Authorization: Bearer ${first.variable}" $API/test_sets

The section "API" of README.md goes on from there. Ctrl-C stops all of it.
"""
    )


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

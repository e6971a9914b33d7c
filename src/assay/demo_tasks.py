"""Runs two organizations' sets of tests at once, by a real worker, and checks every count.

It migrates the environment's database, which may be the embedded server's, and leaves its rows
there.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import FrameType
from typing import Final

from alembic import command
from alembic.config import Config
from kombu.exceptions import OperationalError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import func, select

from assay.config import EndpointPolicy
from assay.demo_server import Application, Question, planned, serving
from assay.models import RunStatus, Test, TestResult, TestRun, Verdict
from assay.services.configurations import create_configuration
from assay.services.imports import import_tests
from assay.services.organizations import create_organization
from assay.tasks import execute_test_configuration
from assay.worker import app
from tenantry import maintenance_session, tenant_scope
from tenantry.celery import task_launcher

_TIMEOUT: Final = 3
_FINAL: Final = {RunStatus.COMPLETED, RunStatus.PARTIAL, RunStatus.FAILED, RunStatus.CANCELLED}
_FILES: Final = {"gsm8k": "gsm8k_test.jsonl", "truthfulqa": "truthfulqa.csv"}


@dataclass(slots=True)
class Party:
    """An organization of the demonstration, and its run, which it starts as itself."""

    name: str
    id: None
    organization_id: uuid.UUID
    configuration_id: uuid.UUID
    questions: list[Question]
    run: str = ""


def main(arguments: list[str] | None = None) -> int:
    """Return 0 if every count is the one that was served."""
    parser = argparse.ArgumentParser(prog="python -m assay.demo_tasks", description=__doc__)
    parser.add_argument(
        "--data",
        type=Path,
        default=os.environ.get("ASSAY_DATA") or None,
        help=f"folder with {' and '.join(_FILES.values())}; a built-in sample without it",
    )
    parser.add_argument("--limit", type=int, help="take so many tests of each file")
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument(
        "--no-access", action="store_true", help="forbid the worker the call: the run must notice"
    )
    parser.add_argument("--patience", type=float, default=300, help="seconds until it has failed")
    options = parser.parse_args(arguments)
    _end_in_order()
    console = Console(stderr=not sys.stdout.isatty())
    if unreachable := _unreachable():
        sys.stderr.write(f"error: {unreachable}\n")
        return 1
    _migrate()
    application = Application(slowness=2 * _TIMEOUT)
    with serving(application) as url, tempfile.TemporaryDirectory(prefix="assay-") as folder:
        files = _files(options.data, Path(folder))
        parties = [_prepare(name, path, url, options.limit) for name, path in files.items()]
        for party in parties:
            application.learn(f"/{party.name}", party.questions)
        started = time.monotonic()
        environ = os.environ if options.no_access else worker_environment()
        with working(Path(folder), environ, concurrency=options.concurrency) as log:
            for party in parties:
                _launch(party)
            ended = _watch(parties, console, started + options.patience)
            seconds = time.monotonic() - started
        faults = _faults(parties, application)
        if not ended:
            faults.append(f"not finished after {options.patience:g} s")
        for fault in faults:
            console.print(f"[red]wrong[/]: {fault}", highlight=False)
        if faults:
            console.print(log.read_text(errors="replace")[-4000:], markup=False, highlight=False)
    tests = sum(len(party.questions) for party in parties)
    console.print(
        f"{tests:,} tests in {seconds:.1f} s, {tests / seconds:.0f} a second, "
        f"broker {app.connection().transport_cls}: {'FAILED' if faults else 'as served'}",
        highlight=False,
    )
    return 1 if faults else 0


@contextmanager
def working(folder: Path, environ: Mapping[str, str], *, concurrency: int) -> Iterator[Path]:
    """Run a worker with its beat in the environment, and yield its log's path."""
    log = folder / "worker.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            worker_command(folder, concurrency=concurrency),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environ),
            start_new_session=True,
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def worker_command(folder: Path, *, concurrency: int) -> list[str]:
    """Return the command of a worker that keeps its files in the folder."""
    return [
        *(sys.executable, "-m", "celery", "--app", "assay.worker", "worker", "--beat"),
        "--queues=celery,maintenance",
        f"--concurrency={concurrency}",
        f"--schedule={folder / 'schedule'}",
        "--loglevel=WARNING",
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    ]


def worker_environment() -> dict[str, str]:
    """Return this process's environment, with the demonstration's own server allowed."""
    allowed = {"ASSAY_HTTP_HOSTS": "127.0.0.1", "ASSAY_ALLOWED_NETWORKS": "127.0.0.1/32"}
    return os.environ | allowed


def _end_in_order() -> None:
    """Have the first signal that asks for an end leave no worker behind, and the others wait."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(number: int, _frame: FrameType | None) -> None:
        for each in signals:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    for each in signals:
        signal.signal(each, end)


def _unreachable() -> str | None:
    """Return why the broker cannot be used; None if it answers."""
    with app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=_TIMEOUT)
        except OperationalError as error:
            return f"the broker {connection.as_uri()} does not answer: {error}"
    return None


def _migrate() -> None:
    root = Path(__file__).resolve().parents[2]
    command.upgrade(Config(root / "alembic.ini"), "head")


def _files(data: Path | None, folder: Path) -> dict[str, Path]:
    if data is not None:
        return {name: data / file for name, file in _FILES.items()}
    sums = folder / "sums.jsonl"
    with sums.open("w", encoding="utf-8") as file:
        for number in range(150):
            row = {"prompt": f"{number} + 25?", "expected": str(number + 25), "metric": "numeric"}
            file.write(f"{json.dumps(row)}\n")
    words = folder / "words.jsonl"
    with words.open("w", encoding="utf-8") as file:
        for number in range(100):
            row = {"prompt": f"Word {number}?", "expected": f"word-{number}", "metric": "exact"}
            file.write(f"{json.dumps(row)}\n")
    return {"sums": sums, "words": words}


def _prepare(name: str, path: Path, url: str, limit: int | None) -> Party:
    organization = create_organization(name, users=[f"{name}@example.org"])
    stored = import_tests(path, organization.id, name, limit=limit)
    configuration_id = create_configuration(
        organization.id,
        name,
        test_set_id=stored.id,
        url=f"{url}/{name}",
        policy=EndpointPolicy(
            http_hosts=frozenset({"127.0.0.1"}), networks=(ip_network("127.0.0.1/32"),)
        ),
        timeout_seconds=_TIMEOUT,
    )
    with tenant_scope(organization.id) as session:
        rows = session.execute(select(Test.prompt, Test.expected, Test.metric))
        questions = [Question(*row) for row in rows]
    return Party(name, None, organization.id, configuration_id, questions)


def _launch(party: Party) -> None:
    party.run = task_launcher(
        execute_test_configuration, str(party.configuration_id), current_user=party
    ).id


def _watch(parties: list[Party], console: Console, deadline: float) -> bool:
    """Show how far the runs are until all have ended; return whether they did in time."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as bars:
        rows = [bars.add_task(party.name, total=len(party.questions)) for party in parties]
        while time.monotonic() < deadline:
            states = [_state(party) for party in parties]
            for row, (_, counts) in zip(rows, states, strict=True):
                bars.update(row, completed=counts.total())
            if all(status in _FINAL for status, _ in states):
                return True
            time.sleep(0.25)
    return False


def _state(party: Party) -> tuple[RunStatus | None, Counter[Verdict]]:
    with tenant_scope(party.organization_id) as session:
        status = session.scalar(
            select(TestRun.status).where(TestRun.task_id == uuid.UUID(party.run))
        )
        rows = session.execute(
            select(TestResult.verdict, func.count().label("tests"))
            .join(TestRun, TestRun.id == TestResult.test_run_id)
            .where(TestRun.task_id == uuid.UUID(party.run))
            .group_by(TestResult.verdict)
        )
        return status, Counter({row.verdict: row.tests for row in rows})


def _faults(parties: list[Party], application: Application) -> list[str]:
    """Return what is not as it was served."""
    faults = [f"{what}: not a test of that organization" for what in application.strange[:5]]
    for party in parties:
        status, found = _state(party)
        wanted = planned(party.questions)
        if found != wanted:
            faults.append(f"{party.name}: {dict(found)} instead of {dict(wanted)}")
        if status is not _status(wanted):
            faults.append(f"{party.name}: the run is {status} instead of {_status(wanted)}")
        never = {q.prompt for q in party.questions} - application.asked[f"/{party.name}"].keys()
        if never:
            faults.append(f"{party.name}: {len(never)} tests have a result and were never asked")
    with maintenance_session(reason="assay.demo_tasks: count all results", actor="demo") as session:
        rows = session.execute(
            select(TestResult.organization_id, func.count().label("tests")).group_by(
                TestResult.organization_id
            )
        )
        found_by_owner = {row.organization_id: row.tests for row in rows}
    wanted_by_owner = {party.organization_id: len(party.questions) for party in parties}
    if {k: v for k, v in found_by_owner.items() if k in wanted_by_owner} != wanted_by_owner:
        faults.append(f"results by organization: {found_by_owner} instead of {wanted_by_owner}")
    return faults


def _status(wanted: Counter[Verdict]) -> RunStatus:
    if not wanted[Verdict.ERROR]:
        return RunStatus.COMPLETED
    return RunStatus.FAILED if wanted[Verdict.ERROR] == wanted.total() else RunStatus.PARTIAL


if __name__ == "__main__":
    sys.exit(main())

"""`tenantry db …` as a person runs it: a process of its own, its exit code and its two outputs."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from tenantry.embedded import EmbeddedServer


class Project:
    """A working directory to run commands in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / ".tenantry"

    def run(
        self, *arguments: str, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            k: v for k, v in os.environ.items() if k not in {"TENANTRY_HOME", "FORCE_COLOR"}
        }
        return subprocess.run(
            [sys.executable, "-m", "tenantry.cli", *arguments],
            cwd=self.folder,
            env=environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | variables,
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    project = Project(tmp_path_factory.mktemp("project"))
    try:
        assert project.run("db", "start").returncode == 0
        yield project
    finally:
        EmbeddedServer(project.home).reset()


@pytest.fixture
def empty(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_start_can_be_repeated(project: Project) -> None:
    """A second start says what the first one said."""
    again = project.run("db", "start")
    assert again.returncode == 0
    assert again.stdout == project.run("db", "status").stdout


def test_url_alone_is_printed(project: Project) -> None:
    """The output of url is one URL that SQLAlchemy takes as it is."""
    printed = project.run("db", "url")
    assert (printed.returncode, printed.stderr) == (0, "")
    engine = create_engine(printed.stdout.removesuffix("\n"))
    with engine.connect() as connection:
        assert connection.scalar(text("select session_user::text")) == "tenantry_login"
    engine.dispose()


def test_url_forms(project: Project) -> None:
    """--libpq writes what psql reads, --owner names the migrator, --json wraps it."""
    libpq = project.run("db", "url", "--libpq", "--owner").stdout
    assert libpq.startswith("postgresql://tenantry_migrator:")
    assert json.loads(project.run("db", "url", "--json").stdout)["url"].startswith(
        "postgresql+psycopg2://tenantry_login:"
    )


def test_psql_gets_the_rest_of_the_arguments(project: Project) -> None:
    """Options after -- are psql's; its exit code is the command's."""
    query = "select session_user"
    shown = project.run("db", "psql", "--", "-XAtc", query)
    assert (shown.returncode, shown.stdout) == (0, "tenantry_login\n")
    assert project.run("db", "psql", "--owner", "-XAtc", query).stdout == "tenantry_migrator\n"
    assert project.run("db", "psql", "--superuser", "--", "-XAtc", query).stdout == "postgres\n"
    (project.folder / "a file.sql").write_text("select 6 * 7;")
    assert project.run("db", "psql", "--", "-XAt", "-f", "a file.sql").stdout == "42\n"
    assert project.run("db", "psql", "--", "-Xc", "nonsense").returncode == 1


def test_psql_ignores_variables_meant_for_another_server(project: Project) -> None:
    """PGSERVICE and its kin in the environment do not lead psql elsewhere."""
    shown = project.run(
        "db", "psql", "--", "-XAtc", "select 1", PGSERVICE="other", PGHOSTADDR="192.0.2.1"
    )
    assert (shown.returncode, shown.stdout) == (0, "1\n")


def test_status_of_a_running_server_as_json(project: Project) -> None:
    """Status has the facts and no password."""
    shown = project.run("db", "status", "--json")
    status = json.loads(shown.stdout)
    assert shown.returncode == 0
    assert status["running"] is True
    assert status["host"] == "127.0.0.1"
    assert "password" not in shown.stdout


def test_stopped_server_has_exit_codes_of_its_own(empty: Project) -> None:
    """Status exits with 3, url with 1 and one line on stderr; neither makes a folder."""
    status = empty.run("db", "status")
    assert (status.returncode, status.stderr) == (3, "")
    assert "not running" in status.stdout
    url = empty.run("db", "url")
    assert (url.returncode, url.stdout) == (1, "")
    assert url.stderr.startswith("error: ")
    assert url.stderr.count("\n") == 1
    assert empty.run("db", "stop").returncode == 0
    assert not empty.home.exists()


def test_two_logins_at_once_are_a_usage_error(empty: Project) -> None:
    """Contradicting options are refused before anything is done."""
    assert empty.run("db", "url", "--owner", "--superuser").returncode == 2


def test_reset_asks_first(empty: Project) -> None:
    """Without a yes the data stay; with one they go."""
    try:
        assert empty.run("db", "start").returncode == 0
        assert empty.run("db", "reset", stdin="n\n").returncode == 1
        assert empty.run("db", "status").returncode == 0
        assert empty.run("db", "reset", "--yes").returncode == 0
        assert empty.run("db", "status").returncode == 3
    finally:
        EmbeddedServer(empty.home).reset()


def test_unusable_binaries_are_one_line(empty: Project) -> None:
    """A wrong TENANTRY_POSTGRES_BIN is an error message, never a traceback."""
    failed = empty.run("db", "start", TENANTRY_POSTGRES_BIN="/nonexistent")
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: TENANTRY_POSTGRES_BIN")
    assert failed.stderr.count("\n") == 1


def test_version_and_help(empty: Project) -> None:
    """The command names itself, and its help names the exit code of status."""
    assert empty.run("--version").stdout.startswith("tenantry ")
    assert "Exits with 3" in empty.run("db", "status", "--help").stdout

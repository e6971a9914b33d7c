"""`assay …` as a person runs it: a process of its own, its exit code and its two outputs."""

import getpass
import json
import os
import pty
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.testing import Database, Server

ROWS = "prompt,expected\nWhat is 1+1?,2\nWhat is 1+2?,3\n"


class Shell:
    """Runs the command in a folder, with a database's URLs in its environment."""

    def __init__(self, folder: Path, urls: Mapping[str, URL]) -> None:
        self.folder = folder
        inherited = {
            k: v for k, v in os.environ.items() if k not in {"TENANTRY_HOME", "FORCE_COLOR"}
        }
        self.environment = (
            inherited
            | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TENANTRY_MODE": "database"}
            | {name: url.render_as_string(hide_password=False) for name, url in urls.items()}
        )
        (folder / "tests.csv").write_text(ROWS)

    def start(self, *arguments: str, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "assay.cli", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        with self.start(*arguments) as process:
            output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    def create(self, name: str) -> str:
        """Create an organization and return its id."""
        created = self.run("organizations", "create", name)
        assert created.returncode == 0, created.stderr
        return str(uuid.UUID(created.stdout.strip()))

    def sets(self, organization: str) -> list[tuple[str, int]]:
        """Return names and sizes of the organization's sets."""
        listed = self.run("sets", "list", "--organization", organization, "--json")
        assert listed.returncode == 0, listed.stderr
        return [(each["name"], each["tests"]) for each in json.loads(listed.stdout)]


@pytest.fixture(scope="module")
def database(tenantry_server: Server, tenantry_template: str) -> Iterator[Database]:
    database = tenantry_server.create_database(template=tenantry_template)
    yield database
    database.drop()


@pytest.fixture
def shell(database: Database, tmp_path: Path) -> Shell:
    return Shell(
        tmp_path,
        {"DATABASE_URL": database.app_url, "MAINTENANCE_DATABASE_URL": database.maintenance_url},
    )


@pytest.fixture(scope="module")
def organization(database: Database, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the id of an organization that the tests of errors share."""
    folder = tmp_path_factory.mktemp("organization")
    return Shell(folder, {"DATABASE_URL": database.app_url}).create("Shared")


def fails(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Check that a command said one line about an error, and exited with 1."""
    assert done.returncode == 1, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    for word in words:
        assert word in line


def query(database: Database, statement: str, *parameters: str) -> list[tuple[object, ...]]:
    """Run a query as the superuser, who sees every tenant."""
    with closing(psycopg2.connect(libpq_url(database.superuser_url))) as connection:
        cursor = connection.cursor()
        cursor.execute(statement, parameters)
        return cursor.fetchall()


def test_import_and_list_by_name(shell: Shell, database: Database) -> None:
    """A name is enough: looked up across tenants, on the record, then all is the tenant's own."""
    name = f"Acme {uuid.uuid4().hex}"
    organization = shell.create(name)
    done = shell.run("import", "tests.csv", "--organization", name, "--set", "sums")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"imported 2 tests into 'sums' of '{name}' ({organization})\n"
    assert shell.sets(organization) == [("sums", 2)]
    plain = shell.run("sets", "list", "--organization", organization)
    assert plain.stdout.split()[1:] == ["2", "sums"]
    reason = "assay import: find an organization by its name"
    logged = query(database, "select distinct actor from maintenance_log where reason = %s", reason)
    assert logged == [(getpass.getuser(),)]


def test_import_by_id_needs_no_maintenance(
    shell: Shell, database: Database, organization: str
) -> None:
    """With an id, nothing steps outside the tenant: the login for that need not exist."""
    del shell.environment["MAINTENANCE_DATABASE_URL"]
    before = query(database, "select count(*) from maintenance_log")
    done = shell.run("import", "tests.csv", "--organization", organization, "--set", "by id")
    assert (done.returncode, done.stderr) == (0, "")
    assert query(database, "select count(*) from maintenance_log") == before
    fails(
        shell.run("sets", "list", "--organization", "Shared"),
        "MAINTENANCE_DATABASE_URL is not set",
        "give the organization's id",
    )


def test_organizations_are_created_with_users_and_listed(shell: Shell, database: Database) -> None:
    """Users come with their organization, and the list of all is for a stated reason."""
    name = f"Acme {uuid.uuid4().hex}"
    made = shell.run(
        "organizations", "create", name, "--user", "a@x.org", "--user", "b@x.org", "--json"
    )
    created = json.loads(made.stdout)
    assert created["name"] == name
    emails = query(
        database, "select email from users where organization_id = %s order by 1", created["id"]
    )
    assert emails == [("a@x.org",), ("b@x.org",)]
    listed = shell.run("organizations", "list", "--reason", "a count", "--json")
    assert created in json.loads(listed.stdout)
    assert query(database, "select count(*) from maintenance_log where reason = 'a count'") == [
        (1,)
    ]
    assert (
        f"{created['id']}  {name}\n" in shell.run("organizations", "list", "--reason", "b").stdout
    )
    assert shell.run("organizations", "list").returncode == 2


def test_organization_with_a_bad_user_is_not_created(shell: Shell, database: Database) -> None:
    """An address that is none, or comes twice, leaves no organization without its users."""
    name = f"Acme {uuid.uuid4().hex}"
    fails(shell.run("organizations", "create", name, "--user", "nobody"), "no email address")
    fails(
        shell.run("organizations", "create", name, "--user", "a@x.org", "--user", "a@x.org"),
        "named twice",
    )
    assert query(database, "select id from organizations where name = %s", name) == []


def test_ambiguous_name_lists_the_ids(shell: Shell) -> None:
    """Two organizations of one name are told apart by their ids, which the error names."""
    name = f"Twin {uuid.uuid4().hex}"
    ids = [shell.create(name), shell.create(name)]
    fails(
        shell.run("import", "tests.csv", "--organization", name, "--set", "s"),
        "2 organizations",
        *ids,
    )


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("nobody's", "no organization is named"),
        ("81f161aa-5552-477f-bc03-bf2ac6aa2e8", "is no UUID"),
        ("81f161aa-5552-477f-bc03-bf2ac6aa2e8d", "no organization has the id"),
        (" ", "is blank"),
    ],
)
def test_organization_that_is_none_is_one_error(shell: Shell, reference: str, words: str) -> None:
    """An unknown name, a malformed id and an unknown id each say what is wrong."""
    fails(shell.run("import", "tests.csv", "--organization", reference, "--set", "s"), words)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("missing.csv", None, "cannot be read: No such file"),
        ("missing", None, "cannot be read: No such file"),
        (".", None, "--format"),
        ("folder.csv", None, "cannot be read: Is a directory"),
        ("empty.csv", b"", "is empty"),
        ("broken.csv", b"prompt,expected\na,b\nc\n", "line 3"),
        ("latin.csv", b"prompt,expected\na,\xe9\n", "line 2: byte 3 of the line, 0xe9"),
        ("other.csv", b"q,a\n1,2\n", "--prompt"),
    ],
)
def test_file_that_cannot_be_imported_is_one_error(
    shell: Shell, organization: str, file: str, content: bytes | None, words: str
) -> None:
    """A missing file, a folder, an empty or broken file: one line that says which fault."""
    (shell.folder / "folder.csv").mkdir()
    if content is not None:
        (shell.folder / file).write_bytes(content)
    fails(shell.run("import", file, "--organization", organization, "--set", "bad"), words)
    assert "bad" not in dict(shell.sets(organization))


def test_second_import_says_what_to_do(shell: Shell, organization: str) -> None:
    """A set is never doubled in silence."""
    command = ("import", "tests.csv", "--organization", organization, "--set", "again")
    assert shell.run(*command).returncode == 0
    fails(shell.run(*command), "'again'", "--set")
    assert ("again", 2) in shell.sets(organization)


def test_options_reach_the_import(shell: Shell, organization: str) -> None:
    """Format, columns, metric, separator and limit are what the options say."""
    (shell.folder / "data.txt").write_text("q,a,kind\nx,1|2,k\ny,3|4,k\nz,,\n")
    done = shell.run(
        *("import", "data.txt", "--format", "csv", "--organization", organization),
        *("--set", "mapped", "--prompt", "q", "--expected", "a", "--category", "kind"),
        *("--metric", "any_of", "--separator", "|", "--limit", "2", "--reference", "q"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported 2 tests into 'mapped'")


def test_unreachable_server_is_one_error(shell: Shell, organization: str) -> None:
    """Where no server listens, the error names the address without the password."""
    address = "postgresql+psycopg2://tenantry:hidden@127.0.0.1:1/tenantry"
    shell.environment |= {"DATABASE_URL": address, "MAINTENANCE_DATABASE_URL": address}
    for reference in (organization, "Shared"):
        done = shell.run("sets", "list", "--organization", reference)
        fails(done, "no connection to", "127.0.0.1:1/")
        assert "hidden" not in done.stderr


def test_missing_migrations_are_one_error(
    shell: Shell, organization: str, empty_database: Database
) -> None:
    """On an empty database the error names the command that mends it."""
    empty = Shell(
        shell.folder,
        {
            "DATABASE_URL": empty_database.app_url,
            "MAINTENANCE_DATABASE_URL": empty_database.maintenance_url,
        },
    )
    for reference in (organization, "Shared"):
        fails(empty.run("sets", "list", "--organization", reference), "alembic upgrade head")


def test_environment_is_read_from_the_file(shell: Shell, organization: str) -> None:
    """URLs in `.env` serve as well as those of the process."""
    (shell.folder / ".env").write_text(f"DATABASE_URL={shell.environment.pop('DATABASE_URL')}\n")
    assert isinstance(shell.sets(organization), list)


def test_interrupted_import_leaves_nothing(
    shell: Shell, database: Database, organization: str
) -> None:
    """Ctrl-C between two batches exits with 130, and no test of it is stored."""
    pipe = shell.folder / "pipe.jsonl"
    os.mkfifo(pipe)
    process = shell.start("import", str(pipe), "--organization", organization, "--set", "cut")
    with process, pipe.open("w") as file:
        for number in range(2000):
            file.write(json.dumps({"prompt": f"p{number}", "expected": "e"}) + "\n")
        file.flush()
        await_backend(database, "state = 'idle in transaction'")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=90)
    assert (process.returncode, output, errors) == (130, "", "")
    assert "cut" not in dict(shell.sets(organization))


def test_interrupt_ends_the_wait_for_a_lock(
    shell: Shell, database: Database, organization: str
) -> None:
    """Ctrl-C is heard while another import of the same name, unfinished, holds this one up."""
    with closing(psycopg2.connect(libpq_url(database.superuser_url))) as connection:
        connection.cursor().execute(
            "insert into test_sets (organization_id, name) values (%s, 'held')", [organization]
        )
        process = shell.start(
            "import", "tests.csv", "--organization", organization, "--set", "held"
        )
        with process:
            await_backend(database, "wait_event_type = 'Lock'")
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=90)
    assert (process.returncode, output, errors) == (130, "", "")
    assert "held" not in dict(shell.sets(organization))


def await_backend(database: Database, condition: str) -> None:
    """Wait until one of the application's backends is in this state."""
    for _ in range(3000):
        if query(
            database,
            "select pid from pg_stat_activity where datname = current_database()"
            f" and usename = %s and {condition}",
            str(database.app_url.username),
        ):
            return
        time.sleep(0.02)
    pytest.fail(f"no backend with {condition}")


def test_progress_is_shown_on_a_terminal(shell: Shell, organization: str) -> None:
    """A person at a terminal sees the file and the bar; a pipe gets neither."""
    shell.environment |= {"TERM": "xterm", "COLUMNS": "100"}
    controller, terminal = pty.openpty()
    with shell.start(
        *("import", "tests.csv", "--organization", organization, "--set", "shown"), stderr=terminal
    ) as process:
        os.close(terminal)
        shown = b"".join(iter(_reader(controller), b""))
        output, _ = process.communicate(timeout=90)
    os.close(controller)
    assert process.returncode == 0
    assert output.startswith("imported 2 tests")
    assert b"tests.csv" in shown
    assert b"100%" in shown


def _reader(controller: int) -> Callable[[], bytes]:
    def read() -> bytes:
        try:
            return os.read(controller, 65536)
        except OSError:  # Linux reports the closed other end of a terminal so
            return b""

    return read

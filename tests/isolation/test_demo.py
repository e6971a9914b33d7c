"""`make demo` proves what it says, and says so when there is nothing to prove."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer
from tenantry.testing.matrix import COMMANDS, SITUATIONS, SURFACES

Demo = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a home for the embedded server of this module, which is stopped afterwards."""
    folder = tmp_path_factory.mktemp("demo")
    yield folder
    EmbeddedServer(folder).reset()


@pytest.fixture
def demo(home: Path, tmp_path: Path) -> Demo:
    """Return what runs the demonstration as `make demo` does, on that server."""
    mine = {"DATABASE_URL", "MIGRATION_DATABASE_URL", "MAINTENANCE_DATABASE_URL"}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in mine
        and (name == "TENANTRY_POSTGRES_BIN" or not name.startswith(("TENANTRY_", "PG")))
    }

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "assay.demo", *arguments],
            cwd=tmp_path,  # where no .env is
            env=inherited | {"TENANTRY_HOME": str(home)} | variables,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def as_owner(home: Path, *statements: str) -> None:
    """Execute statements as the role that owns the tables."""
    url = EmbeddedServer(home).url("owner")
    with (
        closing(psycopg2.connect(libpq_url(url))) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("set role tenantry_owner")
        for statement in statements:
            cursor.execute(statement)


def test_demo_stops_every_attack_and_passes_the_audit(demo: Demo) -> None:
    """The first run sets everything up; it exits with 0 and says what was stopped, and how."""
    finished = demo()
    assert finished.stderr == ""
    assert finished.returncode == 0, finished.stdout
    for step in ("Start PostgreSQL", "alembic upgrade head", "Create two organizations", "Import"):
        assert step in finished.stdout
    assert "attacks were stopped, and the audit found no fault" in finished.stdout
    assert "ISOLATED: " in finished.stdout
    assert "`tenantry db stop` stops it" in finished.stdout
    assert "\x1b" not in finished.stdout
    for command in COMMANDS:
        assert command in finished.stdout


def test_second_run_finds_its_organizations_again(demo: Demo, home: Path) -> None:
    """No run adds another pair, and each attack is listed with its outcome."""
    first, second = demo("--json"), demo("--json")
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert second.stderr.count("from an earlier run") == 2
    outcomes = json.loads(second.stdout)
    assert {outcome["verdict"] for outcome in outcomes} == {"stopped"}
    assert {outcome["attack"] for outcome in outcomes} == set(COMMANDS)
    assert {outcome["surface"] for outcome in outcomes} == set(SURFACES)
    assert {outcome["context"] for outcome in outcomes} == set(SITUATIONS)
    with (
        closing(psycopg2.connect(libpq_url(EmbeddedServer(home).url("superuser")))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("select name from organizations order by name")
        assert cursor.fetchall() == [("Demo Harbour",), ("Demo Orchard",)]
        # A sweeper, such as the one of `make up`, finds nothing to see to.
        cursor.execute("select distinct name, state, due_at from task_records")
        task = "assay.tasks.test_configuration.execute_test_configuration"
        assert cursor.fetchall() == [(task, "success", None)]


def test_demo_fails_where_a_foreign_key_reaches_across(demo: Demo, home: Path) -> None:
    """An attack that gets through is named, and the run exits with 1."""
    assert demo().returncode == 0
    name = "fk_test_set_tests_organization_id_test_id"
    as_owner(
        home,
        "alter table tests add constraint uq_tests_id unique (id)",
        f"alter table test_set_tests drop constraint {name}",
        f"alter table test_set_tests add constraint {name} foreign key (test_id) "
        "references tests (id)",
    )
    try:
        finished = demo()
    finally:
        as_owner(
            home,
            f"alter table test_set_tests drop constraint {name}",
            "alter table tests drop constraint uq_tests_id",
            f"alter table test_set_tests add constraint {name} foreign key "
            "(organization_id, test_id) references tests on delete cascade",
        )
    assert finished.returncode == 1
    assert "TENANTS ARE NOT ISOLATED" in finished.stdout
    assert f"refer ({name}) test_set_tests by orm, own tenant: GOT THROUGH" in finished.stdout


def test_demo_fails_where_a_wall_is_missing(demo: Demo, home: Path) -> None:
    """Though the layer stands in for row security, the audit fails, and the run exits with 1."""
    assert demo().returncode == 0
    as_owner(home, "alter table test_sets disable row level security")
    try:
        finished = demo()
        strict = demo(TENANTRY_MODE="database")
    finally:
        as_owner(home, "alter table test_sets enable row level security")
    assert finished.returncode == 1
    assert "TENANTS ARE NOT ISOLATED" in finished.stdout
    assert "ROW-LEVEL SECURITY DOES NOT KEEP TENANTS APART" in finished.stderr
    assert strict.returncode == 1
    assert strict.stderr.startswith("error: ")
    assert strict.stderr.count("\n") == 1


def test_demo_fails_where_a_tenant_cannot_see_its_own_rows(demo: Demo, home: Path) -> None:
    """With the permissive policy dropped all attacks fail for want of rows: that is no pass."""
    assert demo().returncode == 0
    rule = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
    as_owner(home, "drop policy endpoints_tenant on endpoints")
    try:
        finished = demo()
    finally:
        as_owner(
            home, f"create policy endpoints_tenant on endpoints using ({rule}) with check ({rule})"
        )
    assert finished.returncode == 1
    assert "Traceback" not in finished.stderr


def test_unreachable_server_is_one_line(demo: Demo) -> None:
    """A wrong URL is an error of one line, with nothing half-done."""
    url = "postgresql+psycopg2://nobody:secret@127.0.0.1:1/none"
    finished = demo(DATABASE_URL=url, MIGRATION_DATABASE_URL=url)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1].startswith("error: no connection to ")
    assert "secret" not in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr


def test_help_says_what_happens_to_the_database(demo: Demo) -> None:
    """The help says what is done and to which database."""
    finished = demo("--help")
    assert finished.returncode == 0
    assert "Demo Harbour" in finished.stdout

"""sql/leakproof.sql marks what it lists, says so, and takes the marks off again."""

import subprocess
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy.engine import URL
from tests.conftest import RequireService
from tests.fixtures.catalogs import A, create_catalog

from tenantry.audit import run_audit
from tenantry.config import libpq_url
from tenantry.embedded.binaries import find_binaries
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected

SCRIPT = Path(__file__).parents[2] / "sql" / "leakproof.sql"
PATTERNS = {"textlike(text,text)", "texticlike(text,text)"}


class Run(Protocol):
    """Run the script with psql."""

    def __call__(self, url: URL, **variables: str) -> subprocess.CompletedProcess[str]:
        """Return what came of it."""


@pytest.fixture
def run() -> Run:
    """Return what runs the script as a person does."""

    def execute(url: URL, **variables: str) -> subprocess.CompletedProcess[str]:
        given = [each for key, value in variables.items() for each in ("-v", f"{key}={value}")]
        return subprocess.run(
            [find_binaries().psql, "-X", "-q", "-d", libpq_url(url), *given, "-f", SCRIPT],
            capture_output=True,
            text=True,
            check=False,
        )

    return execute


@pytest.fixture
def database(
    fresh_database: Database, tenantry_server: Server, require_service: RequireService
) -> Database:
    """Return a catalog of the test's own."""
    require_service(tenantry_server.superuser, "the script takes a superuser")
    create_catalog(fresh_database)
    return fresh_database


def marked(database: Database) -> set[str]:
    """Return the functions that are LEAKPROOF and were not when the server was made."""
    with connected(database.superuser_url) as cursor:
        cursor.execute(
            "select p.oid::regprocedure::text from pg_proc as p where proleakproof "
            "and p.oid::regprocedure::text ~ "
            "'^(numeric_|enum_eq|lower|jsonb_|arraycontains|ts_match|citext_eq|texti?c?like)'"
        )
        return {name for (name,) in cursor.fetchall()}


def plan(database: Database, condition: str) -> str:
    """Return how the application's query on the goods of a tenant is executed."""
    with connected(database.app_url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [str(A)])
        cursor.execute("set enable_seqscan = off")
        cursor.execute(f"explain (costs off) select * from goods where {condition}")
        return "\n".join(line for (line,) in cursor.fetchall())


def test_marks_let_the_policys_index_be_searched(database: Database, run: Run) -> None:
    """Marked, a plain query reads by tenant and value; unmarked, it filters; twice is once."""
    conditions = ("cost = 3", "lower(mail) = 'x'", "state = 'gone'", "nickname = 'nick5'")
    for _ in range(2):
        before = marked(database)
        assert before == set()
        assert all("Filter" in plan(database, each) for each in conditions)
        for _ in range(2):
            done = run(database.superuser_url, mark="on")
            assert (done.returncode, done.stderr) == (0, "")
        assert len(marked(database)) == 12
        assert not marked(database) & PATTERNS
        assert not [each for each in conditions if "Filter" in plan(database, each)]
        with connected(database.app_url) as cursor:
            found = {each.check for each in run_audit(cursor.connection).findings}
        assert "function_leakproof" not in found
        assert run(database.superuser_url, mark="off").returncode == 0


def test_patterns_are_asked_for_by_name(database: Database, run: Run) -> None:
    """LIKE and ILIKE tell of rows: they are marked when they are named, and unmarked with all."""
    run(database.superuser_url, mark="on", patterns="on")
    assert marked(database) >= PATTERNS
    run(database.superuser_url, mark="off")
    assert marked(database) == set()


def test_without_a_word_nothing_is_changed(database: Database, run: Run) -> None:
    """The script shows what there is to mark; a word that it does not know is an error."""
    done = run(database.superuser_url)
    assert done.returncode == 0
    assert "numeric_eq" in done.stdout
    assert "citext_eq" in done.stdout
    assert run(database.superuser_url, mark="yes").returncode == 3
    assert marked(database) == set()


def test_only_a_superuser_may_mark(database: Database, run: Run) -> None:
    """The owner of the database is refused, and nothing is changed."""
    done = run(database.owner_url, mark="on")
    assert done.returncode == 3
    assert marked(database) == set()

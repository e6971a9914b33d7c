"""What is stored for the role or the database changes no finding and breaks no audit off."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import URL
from tests.audit.conftest import OF_THE_DATABASE, OF_THE_SERVER, Audited
from tests.audit.test_psql import found
from tests.audit.walls import walled
from tests.conftest import RequireService
from tests.fixtures.psql import AUDIT, run_psql

from tenantry.audit import run_audit
from tenantry.config import libpq_url
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected

ROOT = Path(__file__).parents[2]

STORED = (
    "standard_conforming_strings = off",
    "client_encoding = 'LATIN1'",
    "client_encoding = 'SQL_ASCII'",
    "statement_timeout = 10",
    "lock_timeout = 1",
    "idle_in_transaction_session_timeout = 100",
    "quote_all_identifiers = on",
    "datestyle = 'German, DMY'",
    "intervalstyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "xmloption = 'document'",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "default_transaction_read_only = on",
    "search_path = pg_temp",
    "transform_null_equals = on",
    "exit_on_error = on",
)
FAULTS = (
    "alter table test_sets no force row level security",
    "drop policy tests_tenant_wall on tests",
    "create sequence open",
    "alter sequence open owner to tenantry_owner",
    "alter sequence open owned by test_runs.id",
    "grant usage on sequence open to tenantry_app",
    "create function planted() returns text language sql security definer as 'select 1::text'",
)


@pytest.mark.parametrize("setting", STORED)
def test_stored_setting_changes_no_finding(audited: Audited, setting: str) -> None:
    """Of both readers; the backslash of a pattern and the time for a query are the audit's own."""
    audited.broken_by(*FAULTS, 'create table "\u8868" (organization_id uuid not null)')
    expected = audited.audit().findings
    assert len({each.check for each in expected}) > 5
    audited.broken_by(f"alter database {audited.database.name} set {setting}")
    report = audited.audit()
    assert (report.findings, report.unseen) == (expected, ())
    done = run_psql(audited.database.app_url, AUDIT, f"skip={OF_THE_SERVER}", stop=False)
    assert found(done.stdout) == [(each.check, each.object) for each in expected]
    assert done.stderr.count("ERROR") == 1


def test_statement_limit_of_newer_servers_is_lifted(audited: Audited) -> None:
    """transaction_timeout, of PostgreSQL 17 and later."""
    with connected(audited.database.superuser_url) as cursor:
        cursor.execute("select current_setting('transaction_timeout', true)")
        if cursor.fetchone() == (None,):
            pytest.skip("the server has no transaction_timeout")
    audited.broken_by(f"alter database {audited.database.name} set transaction_timeout = 20")
    assert audited.audit().findings == ()


def test_client_encoding_is_the_callers_again(audited: Audited) -> None:
    """The driver reads in the encoding that it began with."""
    url = audited.database.app_url.update_query_dict({"client_encoding": "LATIN1"})
    with closing(psycopg2.connect(libpq_url(url))) as connection, connection.cursor() as cursor:
        run_audit(connection, only=OF_THE_DATABASE)
        cursor.execute("show client_encoding")
        assert (cursor.fetchone(), connection.encoding) == (("LATIN1",), "LATIN1")
        cursor.execute("select chr(233)")
        assert cursor.fetchone() == ("\xe9",)


@pytest.fixture
def encoded(
    empty_database: Database,
    tenantry_server: Server,
    require_service: RequireService,
    request: pytest.FixtureRequest,
) -> Iterator[URL]:
    """Yield the superuser's URL of a database in this encoding."""
    require_service(tenantry_server.superuser, "the server's administrator is no superuser")
    name = f"{empty_database.name}_{request.param.lower()}"
    with connected(empty_database.superuser_url) as cursor:
        cursor.execute(
            f"create database {name} encoding '{request.param}' template template0 locale 'C'"
        )
        try:
            yield empty_database.superuser_url.set(database=name)
        finally:
            cursor.execute(f"drop database {name} with (force)")


@pytest.mark.parametrize("encoded", ["LATIN1", "LATIN9", "KOI8R", "EUC_JP"], indirect=True)
def test_database_in_another_encoding_is_audited(encoded: URL) -> None:
    """By both readers, with what they find in it."""
    with connected(encoded) as cursor:
        for statement in (*walled("notes"), "drop policy wall on notes"):
            cursor.execute(statement)
    with closing(psycopg2.connect(libpq_url(encoded))) as connection:
        report = run_audit(connection, only=OF_THE_DATABASE)
    assert ("wall_missing", "public.notes") in {
        (each.check, each.object) for each in report.findings
    }
    assert report.unseen == ()
    done = run_psql(encoded, AUDIT, f"skip={OF_THE_SERVER}", stop=False)
    assert found(done.stdout) == [(each.check, each.object) for each in report.findings]


@pytest.mark.parametrize("encoded", ["SQL_ASCII"], indirect=True)
def test_name_without_an_encoding_is_written_out(encoded: URL) -> None:
    """A database that checks nothing holds bytes that are no text."""
    with closing(psycopg2.connect(libpq_url(encoded))) as connection:
        with connection, connection.cursor() as cursor:
            cursor.execute(b'create table "caf\xe9" (organization_id uuid not null)')
        report = run_audit(connection, only=OF_THE_DATABASE)
    assert ("row_security_off", 'public."caf\\xe9"') in {
        (each.check, each.object) for each in report.findings
    }
    done = run_psql(encoded, AUDIT, f"skip={OF_THE_SERVER}", stop=False)
    assert [check for check, _ in found(done.stdout)] == [each.check for each in report.findings]


@pytest.mark.parametrize("folder", ["src", "sql", "migrations", "tests"])
def test_sql_files_are_ascii(folder: str) -> None:
    """A character beyond it cannot be sent to a database whose encoding lacks it."""
    for path in (ROOT / folder).rglob("*.sql"):
        assert path.read_bytes().isascii(), path

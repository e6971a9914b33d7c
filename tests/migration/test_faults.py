"""What goes wrong around a migration is one clear line; two migrations at once take turns."""

import logging
import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import URL
from tests.migration.conftest import Dump, Execute, RunAlembic, Site, StartAlembic

from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer
from tenantry.exceptions import DatabaseUnreachableError, WrongRoleError
from tenantry.testing import Database

EMPTY = "select count(*) from pg_class where relnamespace = 'public'::regnamespace"


def spoken(result: Any) -> str:
    """Return the one message of a command that failed, however Alembic wrapped it."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    message = " ".join(result.stdout.split())
    assert message.startswith("FAILED: ")
    return message


def test_application_url_alone_is_refused(
    run_alembic: RunAlembic, empty_database: Database, execute: Execute
) -> None:
    """Migrations never run with the application's URL for want of another."""
    result = run_alembic("upgrade", "head", DATABASE_URL=empty_database.app_url)
    assert "MIGRATION_DATABASE_URL is not set, and DATABASE_URL is" in spoken(result)
    assert execute(empty_database.owner_url, EMPTY) == [(0,)]


def test_production_without_urls_is_refused(run_alembic: RunAlembic) -> None:
    """In production the embedded server never stands in."""
    result = run_alembic("upgrade", "head", TENANTRY_ENV="production")
    assert "DATABASE_URL is not set and TENANTRY_ENV is production" in spoken(result)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "MIGRATION_DATABASE_URL is not a database URL"),
        ("postgresql://u:secret@h:port/d", "MIGRATION_DATABASE_URL is not a database URL"),
        ("mysql://u:secret@h/d", "MIGRATION_DATABASE_URL names the driver 'mysql'"),
        (
            "postgresql://u:secret@127.0.0.1:1/d",
            "no connection to postgresql+psycopg2://u:***@127.0.0.1:1/d",
        ),
    ],
)
def test_url_that_leads_nowhere_is_told_without_its_password(
    run_alembic: RunAlembic, url: str, message: str
) -> None:
    """A malformed URL, another database and a dead port are one line each, without the password."""
    result = run_alembic(
        "upgrade", "head", MIGRATION_DATABASE_URL=url, DATABASE_URL="postgresql://a@h/d"
    )
    said = spoken(result)
    assert message in said
    assert "secret" not in said + result.stderr


def test_wrong_password_is_told_without_it(
    run_alembic: RunAlembic, empty_database: Database
) -> None:
    """The message names the login and the variable to look at."""
    result = run_alembic(
        "upgrade",
        "head",
        MIGRATION_DATABASE_URL=empty_database.owner_url.set(password="wr0ng"),
        DATABASE_URL=empty_database.app_url,
    )
    said = spoken(result)
    assert "password authentication failed" in said
    assert "MIGRATION_DATABASE_URL" in said
    assert "wr0ng" not in said + result.stderr


def test_unset_urls_mean_the_embedded_server_and_one_line(
    run_alembic: RunAlembic, tmp_path: Path
) -> None:
    """Without URLs the embedded server is started, and a line of the log says so."""
    home = str(tmp_path / "home")
    try:
        result = run_alembic("upgrade", "head", TENANTRY_HOME=home)
        assert result.returncode == 0, result.stderr
        said = [line for line in result.stderr.splitlines() if "embedded server" in line]
        assert len(said) == 1, result.stderr
        assert "MIGRATION_DATABASE_URL is not set" in said[0]
        assert "WARNING" not in result.stderr
    finally:
        EmbeddedServer(Path(home)).reset()


def test_error_is_of_the_librarys_own_type(alembic_config: Any, empty_database: Database) -> None:
    """A program that calls Alembic finds the library's error as the cause."""
    nowhere = URL.create("postgresql+psycopg2", "u", "p", "127.0.0.1", 1, "d")
    with pytest.raises(CommandError) as unreachable:
        command.upgrade(alembic_config(nowhere, nowhere), "head")
    assert isinstance(unreachable.value.__cause__, DatabaseUnreachableError)
    with pytest.raises(CommandError) as refused:
        command.upgrade(alembic_config(empty_database.app_url, empty_database.app_url), "head")
    assert isinstance(refused.value.__cause__, WrongRoleError)


def test_connection_lost_in_a_revision_is_told_and_rolled_back(
    empty_database: Database, alembic_config: Any, tmp_path: Path, execute: Execute
) -> None:
    """A backend that dies leaves the revision undone, and the error says to run it again."""
    versions = tmp_path / "versions"
    versions.mkdir()
    (versions / "lost.py").write_text(
        "from alembic import op\n"
        "revision, down_revision = 'lost', '20261122_roles'\n"
        "def upgrade():\n"
        "    op.execute('create table half (id int)')\n"
        "    op.execute('select pg_terminate_backend(pg_backend_pid())')\n"
    )
    (tmp_path / "env.py").write_text(
        "from alembic import context\n"
        "from sqlalchemy import MetaData\n"
        "from tenantry.alembic import run_migrations\n"
        "run_migrations(context, MetaData())\n"
    )
    command.upgrade(
        alembic_config(empty_database.owner_url, empty_database.app_url), "20261122_roles"
    )
    config = Config()
    config.set_main_option("script_location", str(tmp_path))
    config.attributes["url"] = empty_database.superuser_url
    (versions / "roles.py").write_text(
        "revision, down_revision = '20261122_roles', None\ndef upgrade():\n    pass\n"
    )
    with pytest.raises(CommandError, match="was lost") as lost:
        command.upgrade(config, "head")
    assert isinstance(lost.value.__cause__, DatabaseUnreachableError)
    assert execute(empty_database.owner_url, "select to_regclass('half')") == [(None,)]


def test_second_migration_of_a_database_waits_for_the_first(
    empty_database: Database, fresh_database: Database, start_alembic: StartAlembic, dump: Dump
) -> None:
    """Three at once on one empty database: each ends well, and the tables were made once."""
    processes = [
        start_alembic(
            "upgrade",
            "head",
            MIGRATION_DATABASE_URL=empty_database.owner_url,
            DATABASE_URL=empty_database.app_url,
        )
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert dump(empty_database) == dump(fresh_database)


def test_waiting_migration_says_so(empty_database: Database, start_alembic: StartAlembic) -> None:
    """One log line tells what is being waited for."""
    lock = "select pg_advisory_xact_lock(hashtext('tenantry.alembic'))"
    with closing(psycopg2.connect(libpq_url(empty_database.app_url))) as other:
        with other.cursor() as cursor:
            cursor.execute(lock)
        process = start_alembic(
            "upgrade",
            "head",
            MIGRATION_DATABASE_URL=empty_database.owner_url,
            DATABASE_URL=empty_database.app_url,
        )
        assert process.stderr is not None
        assert "another migration of this database is running" in process.stderr.readline()
        other.rollback()
        process.communicate(timeout=120)
        assert process.returncode == 0


@pytest.mark.parametrize("attributes", ["superuser", "createrole"])
def test_databases_of_one_server_are_migrated_at_once(
    site: Site, start_alembic: StartAlembic, execute: Execute, attributes: str
) -> None:
    """Two databases race to create the same roles and memberships: both end well."""
    owner, app = site.login("shop", attributes), site.login("web")
    names = [f"site_{secrets.token_hex(4)}" for _ in range(3)]
    with closing(psycopg2.connect(libpq_url(site.superuser))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for name in names:
                cursor.execute(f"create database {name} template template0 owner shop")
    processes = [
        start_alembic(
            "upgrade",
            "head",
            MIGRATION_DATABASE_URL=owner.set(database=name),
            DATABASE_URL=app.set(database=name),
        )
        for name in names
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    for name in names:
        url = app.set(database=name)
        assert execute(url, "select count(*) from organizations") == [(0,)]


def test_warnings_are_logged_as_they_arrive(
    empty_database: Database, alembic_config: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What the server warns of reaches the log, and mere notices do not."""
    caplog.set_level(logging.INFO, "tenantry.alembic")
    absent = empty_database.app_url.set(username=f"absent_{secrets.token_hex(4)}")
    command.upgrade(alembic_config(empty_database.owner_url, absent), "20261122_roles")
    (record,) = caplog.get_records("call")[-1:]
    assert record.levelname == "WARNING"
    assert "is no member of tenantry_app yet" in record.getMessage()

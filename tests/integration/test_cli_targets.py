"""What `tenantry status`, `audit` and `tasks` look at: the database, the driver, the tenancy."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from tenantry import TenancyConfig
from tenantry.alembic import AssumeRoleOp, CreateTenancyRolesOp, IsolateTableOp
from tenantry.testing import Database, Server

ROOT = Path(__file__).parents[2]
SHOP = """
import os
from celery import Celery
from sqlalchemy import BigInteger, text
from sqlalchemy.engine import make_url
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from tenantry import TenancyConfig, create_tenant_engine, current_tenant
from tenantry.celery import TaskRecordMixin, install_tenancy

TENANCY = TenancyConfig(tenant_column="tenant_id", id_type="bigint", root_table="firms")

class Base(DeclarativeBase):
    pass

class Record(TaskRecordMixin, Base):
    __tablename__ = "records"
    organization_id: Mapped[int] = mapped_column(
        "tenant_id", BigInteger, primary_key=True, server_default=text(current_tenant(TENANCY))
    )

def engine():
    url = make_url(os.environ["DATABASE_URL"])
    return create_tenant_engine(url, config=TENANCY, mode="database", metadata=Base.metadata)

app = Celery("shop")
install_tenancy(app, key="k" * 32, sessions=lambda: sessionmaker(engine())(), records=Record,
                config=TENANCY)
"""
CONFIG = TenancyConfig(tenant_column="tenant_id", id_type="bigint", root_table="firms")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of somebody's project."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop_project.py").write_text(SHOP)
    return folder


@pytest.fixture(scope="module")
def shop(tenantry_server: Server, folder: Path) -> Iterator[Database]:
    """Return a database with other names and one recorded task of tenant 1."""
    database = tenantry_server.create_database()
    sys.path.insert(0, str(folder))
    try:
        base = import_module("shop_project").Base
    finally:
        sys.path.remove(str(folder))
    engine = create_engine(database.owner_url)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection, opts={"tenancy": CONFIG}))
        connection.execute(text("create table alembic_version (version_num text)"))
        operations.invoke(CreateTenancyRolesOp([str(database.app_url.username)]))
        operations.invoke(AssumeRoleOp(CONFIG.owner_role))
        connection.execute(text("create table firms (id bigint primary key)"))
        base.metadata.create_all(connection)
        connection.execute(
            text(
                "insert into records (tenant_id, id, name, args_digest, payload) values "
                "(1, '00000000-0000-0000-0000-000000000001', 'send_mail', '', '{}')"
            )
        )
        operations.invoke(IsolateTableOp("firms", column="id"))
        operations.invoke(IsolateTableOp("records"))
    engine.dispose()
    yield database
    database.drop()


def run(*arguments: str, folder: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `tenantry` in a folder; nothing is configured but these variables."""
    unset = dict.fromkeys(
        ("DATABASE_URL", "MIGRATION_DATABASE_URL", "MAINTENANCE_DATABASE_URL", "TENANTRY_ENV"), ""
    )
    return subprocess.run(
        [sys.executable, "-m", "tenantry.cli", *arguments],
        cwd=folder,
        env=os.environ | unset | variables,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def written(url: URL, driver: str = "psycopg2") -> str:
    """Return the URL with its password and this driver."""
    url = url.set(drivername=f"postgresql+{driver}")
    return url.render_as_string(hide_password=False)


@pytest.mark.parametrize(("command", "status"), [("status", 1), ("audit", 2)])
@pytest.mark.parametrize("url", ["", "  "])
def test_empty_url_is_an_error(command: str, status: int, url: str) -> None:
    """A variable that is misspelt in a script does not have another database looked at."""
    done = run(command, "--url", url)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith("error: --url is empty: ")


@pytest.mark.parametrize("command", ["status", "audit"])
@pytest.mark.parametrize("driver", ["psycopg2", "psycopg", "asyncpg"])
def test_any_driver_of_the_url_is_accepted(app_url: URL, command: str, driver: str) -> None:
    """Both commands go through libpq: the application's URL serves as it is, both ways."""
    only = ["--check", "wall_missing"] if command == "audit" else []
    by_option = run(command, "--url", written(app_url, driver), *only)
    by_variable = run(command, *only, DATABASE_URL=written(app_url, driver))
    for done in (by_option, by_variable):
        assert (done.returncode, done.stderr) == (0, "")
        assert str(app_url.database) in done.stdout
        assert str(app_url.username) in done.stdout


def test_option_of_another_driver_is_a_clear_error(app_url: URL) -> None:
    """What libpq cannot read it names itself."""
    url = app_url.update_query_dict({"prepared_statement_cache_size": "0"})
    done = run("status", "--url", written(url, "asyncpg"))
    assert done.returncode == 1
    assert "prepared_statement_cache_size" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["status", "audit"])
def test_embedded_server_is_named_where_nothing_is_configured(command: str, tmp_path: Path) -> None:
    """A verdict about an empty database is not taken for one about the product's."""
    home = {"TENANTRY_HOME": str(tmp_path / "home")}
    try:
        done = run(command, folder=tmp_path, **home)
    finally:
        run("db", "reset", "--yes", folder=tmp_path, **home)
    assert done.stderr == "DATABASE_URL is not set: using the embedded server\n"


def test_status_and_audit_know_the_projects_names(shop: Database, folder: Path) -> None:
    """With the project's TenancyConfig the wall is seen; options beside it win over it."""
    given = ("--config", "shop_project:TENANCY")
    url = ("--url", written(shop.app_url))
    assert run("status", *url, folder=folder).returncode == 1
    done = run("status", *url, *given, "--json", folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["tenant_tables"]
    only = ("--check", "nothing_audited", "--check", "wall_missing")
    assert run("audit", *url, *only, folder=folder).returncode == 1
    done = run("audit", *url, *only, *given, folder=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run("audit", *url, *only, *given, "--role", "absent", folder=folder).returncode == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("absent:TENANCY", "No module named 'absent'"),
        ("shop_project", "Write module:attribute"),
        ("shop_project:Base", "no TenancyConfig"),
    ],
)
def test_config_that_leads_nowhere_is_an_error(folder: Path, name: str, said: str) -> None:
    """It says what was looked for, and looks at no database."""
    for command, status in (("status", 1), ("audit", 2)):
        done = run(command, "--config", name, folder=folder)
        assert (done.returncode, done.stdout) == (status, "")
        assert said in done.stderr


def test_tasks_take_ids_of_the_applications_type(shop: Database, folder: Path) -> None:
    """The application says what the ids of its organizations are."""
    variables = {"DATABASE_URL": written(shop.app_url)}
    arguments = ("tasks", "list", "--organization", "1")
    done = run(*arguments, "--app", "shop_project:app", folder=folder, **variables)
    assert done.returncode == 0, done.stderr
    assert "send_mail" in done.stdout
    other = run(*arguments[:-1], "2", "--app", "shop_project:app", folder=folder, **variables)
    assert "send_mail" not in other.stdout
    done = run(*arguments, folder=folder, **variables)
    assert done.returncode == 1
    assert "--app names the application" in done.stderr

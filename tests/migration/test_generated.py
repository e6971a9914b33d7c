"""Revisions that autogenerate writes for new tables: they run, and every tenant table is walled."""

from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from tests.migration.conftest import Execute, Result, RunAlembic, Site
from tests.migration.test_adopters import INI, RUN_MIGRATIONS, TEMPLATE

from tenantry.testing import Database

OWN_ENV = """
import os
import tenantry.alembic
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(os.environ["MIGRATION_DATABASE_URL"])
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata={metadata}, tenancy=TENANCY)
    with context.begin_transaction():
        context.run_migrations()
"""

MODELS = """
import uuid
from sqlalchemy import MetaData
from sqlalchemy.orm import DeclarativeBase
from tenantry import TenancyConfig, TenantMixin
from tenantry.celery import TaskRecordMixin

TENANCY = TenancyConfig()

class Base(DeclarativeBase):
    pass

metadata = Base.metadata

class Invoice(TenantMixin, Base):
    __tablename__ = "invoices"
"""

ORDER = """
class Order(TenantMixin, Base):
    __tablename__ = "Order Items"
    __table_args__ = {"schema": "Billing Data"}
"""

RECORD = """
class TaskRecord(TaskRecordMixin, Base):
    __tablename__ = "task_records"
"""

EVENT = """
class Event(TenantMixin, Base):
    __tablename__ = "events"
    __table_args__ = {"postgresql_partition_by": "HASH (organization_id)"}
"""

ROLES = """
from alembic import op

revision = "roles"
down_revision = None

def upgrade():
    op.execute('create schema if not exists "Billing Data"')
    op.create_tenancy_roles([{login!r}], schemas=["Billing Data"])

def downgrade():
    op.release_tenancy_roles(schemas=["Billing Data"])
    op.execute('drop schema "Billing Data"')
"""


@dataclass(frozen=True)
class Project:
    """A project's folder and its database, on which nothing has run."""

    folder: Path
    database: Database
    alembic: RunAlembic

    def write(self, models: str, env: str = RUN_MIGRATIONS) -> None:
        """Write models and env.py."""
        (self.folder / "generated_models.py").write_text(models)
        (self.folder / "migrations" / "env.py").write_text(
            f"from generated_models import *\nfrom generated_models import metadata\n{env}"
        )

    def write_roles(self) -> None:
        """Write the first revision, which makes schema and roles."""
        login = self.database.app_url.username
        (self.folder / "migrations" / "versions" / "roles.py").write_text(ROLES.format(login=login))

    def run(self, *arguments: str, url: URL | None = None) -> Result:
        """Run `alembic` there."""
        return self.alembic(
            *arguments,
            folder=self.folder,
            DATABASE_URL=self.database.app_url,
            MIGRATION_DATABASE_URL=url or self.database.owner_url,
            PYTHONPATH=f"{self.folder}:{Path(__file__).parents[2] / 'src'}",
        )

    def generate(self) -> tuple[str, str]:
        """Have a revision written; return its text, and what was logged."""
        result = self.run("revision", "--autogenerate", "-m", "Made", "--rev-id", "made")
        assert result.returncode == 0, result.stderr
        (written,) = (self.folder / "migrations" / "versions").glob("made*")
        return written.read_text(), result.stderr


@pytest.fixture
def project(tmp_path: Path, empty_database: Database, run_alembic: RunAlembic) -> Project:
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text(INI)
    (tmp_path / "migrations" / "script.py.mako").write_text(TEMPLATE)
    return Project(tmp_path, empty_database, run_alembic)


@pytest.mark.parametrize(
    "env",
    [RUN_MIGRATIONS, OWN_ENV.format(metadata="metadata"), OWN_ENV.format(metadata="[metadata]")],
    ids=["run_migrations", "own_env", "own_env_list"],
)
@pytest.mark.parametrize("exists", [False, True], ids=["no_schema", "schema"])
def test_new_tenant_table_in_another_schema_is_walled_off(
    project: Project, execute: Execute, env: str, exists: bool
) -> None:
    """Whether its schema is there or not, and whether Alembic looks into it or not."""
    project.write(MODELS + ORDER, env)
    if exists:
        execute(project.database.owner_url, 'create schema "Billing Data"')
    revision, logged = project.generate()
    assert revision.count("op.create_table(") == 2
    assert "op.isolate_table('invoices')" in revision
    assert "op.isolate_table('Order Items', schema='Billing Data')" in revision
    if not exists:
        assert "schema 'Billing Data' is not in the database: a revision before this" in logged
    elif env is not RUN_MIGRATIONS:
        assert "schema 'Billing Data' was not compared" in logged
        assert "include_schemas=True" in logged
    else:
        assert "Billing Data" not in logged


def test_generated_revision_runs_after_that_of_schema_and_roles(
    project: Project, execute: Execute
) -> None:
    """The way that the documentation names; then nothing is left to do."""
    project.write_roles()
    project.write(MODELS + ORDER + RECORD)
    upgraded = project.run("upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    revision, _ = project.generate()
    assert "sa.Column('payload', sa.Text(), nullable=False)" in revision
    assert "tenantry.celery" not in revision
    upgraded = project.run("upgrade", "head")
    assert upgraded.returncode == 0, upgraded.stderr
    checked = project.run("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    forced = "select count(*) from pg_class where relforcerowsecurity"
    assert execute(project.database.owner_url, forced) == [(3,)]


def test_partitions_are_not_dropped(project: Project, execute: Execute) -> None:
    """They are no tables of the models, but belong to one; other foreign tables are drift."""
    project.write_roles()
    project.write(MODELS + EVENT + ORDER)
    assert project.run("upgrade", "head").returncode == 0
    project.generate()
    assert project.run("upgrade", "head").returncode == 0
    execute(
        project.database.owner_url,
        "set local role tenantry_owner",
        "create table events_0 partition of events for values with (modulus 1, remainder 0)",
        'create table "Billing Data".events_1 (like events)',
        'drop table events_0; alter table events attach partition "Billing Data".events_1 '
        "for values with (modulus 1, remainder 0)",
    )
    checked = project.run("check")
    assert checked.returncode == 0, checked.stdout + checked.stderr
    execute(project.database.owner_url, "create table strange (id bigint)")
    assert project.run("check").returncode != 0


def test_record_of_a_project_with_its_own_env_is_rendered_by_its_type(project: Project) -> None:
    """A `render_item` of the project's own is asked first."""
    env = OWN_ENV.format(metadata="metadata").replace(
        "tenancy=TENANCY",
        "tenancy=TENANCY, render_item=lambda kind, item, _: "
        "'sa.Uuid(as_uuid=True)' if kind == 'type' and str(item) == 'CHAR(32)' else False",
    )
    project.write(MODELS + RECORD, env)
    revision, _ = project.generate()
    assert "sa.Column('payload', sa.Text(), nullable=False)" in revision
    assert "sa.Column('id', sa.Uuid(as_uuid=True)" in revision


@pytest.mark.parametrize(
    "names", ['tenant_column="tenant_id", id_type="bigint"', 'tenant_column="tenant_id"']
)
def test_mixin_under_another_configuration_is_refused(project: Project, names: str) -> None:
    """Its table would have no wall: the error names the table, and no revision is written."""
    project.write(MODELS.replace("TenancyConfig()", f"TenancyConfig({names})"))
    result = project.run("revision", "--autogenerate", "-m", "Made", "--rev-id", "made")
    assert result.returncode != 0
    assert "table 'invoices': column 'organization_id' is filled with" in result.stdout
    assert "Traceback" not in result.stderr
    assert not list((project.folder / "migrations" / "versions").glob("made*"))


@pytest.mark.parametrize("assumed", [False, True])
def test_server_without_the_roles_is_told_how_to_make_them(
    project: Project, site: Site, assumed: bool
) -> None:
    """One line names the operation, where a table is handed over and where the owner acts."""
    project.write(MODELS)
    text, _ = project.generate()
    (written,) = (project.folder / "migrations" / "versions").glob("made*")
    if assumed:
        body = "def upgrade():\n"
        written.write_text(text.replace(body, f"{body}    op.assume_owner()\n"))
    result = project.run("upgrade", "head", url=site.owner("shop", "createrole"))
    assert result.returncode != 0
    assert 'role "tenantry_owner" does not exist: a revision before this one' in result.stdout
    assert "op.create_tenancy_roles()" in result.stdout
    assert "Traceback" not in result.stderr


def test_database_without_the_roles_rights_is_told_how_to_give_them(project: Project) -> None:
    """Where another database's revision made the roles, their rights in this one are missing."""
    project.write(MODELS)
    project.generate()
    result = project.run("upgrade", "head")
    assert result.returncode != 0
    assert "op.create_tenancy_roles()" in result.stdout
    assert "Traceback" not in result.stderr

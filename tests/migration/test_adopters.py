"""A project with its own models, names and env.py adopts the operations and the comparison."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session
from tests.migration.conftest import ROOT, Execute, Psql, Result, RunAlembic

from tenantry import TenancyConfig, create_tenant_engine, set_tenant
from tenantry.testing import Database, Server

LONG = "a_table_whose_name_has_all_of_the_63_bytes_that_an_identifier_h"
BILLING = 'Billing "100%": \\n'

MODELS = """
from sqlalchemy import BigInteger, Column, ForeignKey, Identity, MetaData, Table, Text, text
from tenantry import TenancyConfig
from tenantry.models import current_tenant, shared_info, tenant_info

TENANCY = {tenancy!r}
metadata = MetaData()
TENANT = text(current_tenant(TENANCY).replace(":", "\\\\:"))

def account_id():
    return Column("account_id", BigInteger, server_default=TENANT, nullable=False)

Table("accounts", metadata, Column("id", BigInteger, primary_key=True), Column("name", Text))
Table("currencies", metadata, Column("code", Text, primary_key=True))
Table("changelog", metadata, Column("account_id", BigInteger), info=shared_info())
Table({long!r}, metadata, Column("id", BigInteger, Identity(), primary_key=True), account_id())
Table("Order % lines", metadata, Column("id", BigInteger, primary_key=True), account_id())
Table("invoices", metadata, Column("id", BigInteger, primary_key=True), account_id(),
      schema={billing!r})
Table("members", metadata, Column("Member of", BigInteger, primary_key=True),
      info=tenant_info("Member of"), schema={billing!r})
"""

RUN_MIGRATIONS = """
from alembic import context
from tenantry.alembic import run_migrations

run_migrations(context, metadata, tenancy=TENANCY)
"""

# What `alembic init` writes, with three more lines.
OWN_ENV = """
import os
import tenantry.alembic
from alembic import context
from sqlalchemy import create_engine

SCHEMAS = {table.schema for table in metadata.tables.values()}
engine = create_engine(os.environ["MIGRATION_DATABASE_URL"])
with engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        tenancy=TENANCY,
        include_schemas=True,
        include_name=lambda name, kind, _: kind != "schema" or name in SCHEMAS,
    )
    with context.begin_transaction():
        context.run_migrations()
"""

INI = """
[alembic]
script_location = %(here)s/migrations
"""

TEMPLATE = '''"""${message}"""

import sqlalchemy as sa
from alembic import op
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade():
    ${upgrades if upgrades else "pass"}


def downgrade():
    ${downgrades if downgrades else "pass"}
'''

# The tables were there before, with rows of two accounts.
LEGACY = """
from alembic import op
from sqlalchemy import text
from migrations_models import metadata

revision = "legacy"
down_revision = None

def upgrade():
    op.execute(text({schema!r}))
    metadata.create_all(op.get_bind())
    op.execute(text({rows!r}))

def downgrade():
    metadata.drop_all(op.get_bind())
    op.execute(text({drop!r}))
"""

TENANCY_REVISION = """
from alembic import op

revision = "tenancy"
down_revision = "legacy"

def upgrade():
    op.create_tenancy_roles([{login!r}], schemas=[{billing!r}])
    op.define_tenant_settings()

def downgrade():
    op.undefine_tenant_settings()
    op.release_tenancy_roles(schemas=[{billing!r}])
"""


@dataclass(frozen=True)
class Project:
    """Somebody else's project in a folder, and its database."""

    folder: Path
    database: Database
    tenancy: TenancyConfig
    alembic: RunAlembic

    def run(self, *arguments: str) -> Result:
        """Run `alembic` there; its exit status must be 0."""
        result = self.alembic(
            *arguments,
            folder=self.folder,
            DATABASE_URL=self.database.app_url,
            MIGRATION_DATABASE_URL=self.database.owner_url,
            PYTHONPATH=str(self.folder),
        )
        assert result.returncode == 0, result.stderr
        return result


@pytest.fixture
def tenancy() -> TenancyConfig:
    mark = secrets.token_hex(4)
    return TenancyConfig(
        organization_setting="Shop.Current_Account",
        user_setting="Shop.Current_User",
        tenant_column="account_id",
        root_table="accounts",
        id_type="bigint",
        owner_role=f"the 'owner' \"{mark}\" 100%",
        app_role=f"App:{mark}\\n %s %(x)s",
        authenticator_role=f"authenticator_{mark}".ljust(63, "x"),
        maintenance_role=f"$tenantry$ {mark}",
    )


@pytest.fixture
def database(
    tenantry_server: Server, tenancy: TenancyConfig, execute: Execute
) -> Iterator[Database]:
    """Return an empty database; the roles that the test makes are gone after it."""
    database = tenantry_server.create_database()
    yield database
    database.drop()
    roles = (
        tenancy.owner_role,
        tenancy.app_role,
        tenancy.authenticator_role,
        tenancy.maintenance_role,
    )
    quoted = ", ".join('"' + role.replace('"', '""') + '"' for role in roles)
    execute(tenantry_server.admin_url, f"drop role if exists {quoted}")


@pytest.fixture(params=[RUN_MIGRATIONS, OWN_ENV], ids=["run_migrations", "own_env"])
def project(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    database: Database,
    tenancy: TenancyConfig,
    run_alembic: RunAlembic,
) -> Project:
    """Return a project whose tables exist, owned by whoever migrated, with no wall."""
    schema = '"' + BILLING.replace('"', '""') + '"'
    rows = f"""
        insert into accounts values (1, 'one'), (2, 'two');
        insert into "{LONG}" (account_id) values (1), (2), (2);
        insert into {schema}.invoices values (1, 1), (2, 2), (3, 2);
    """
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "alembic.ini").write_text(INI)
    (tmp_path / "migrations_models.py").write_text(
        MODELS.format(tenancy=tenancy, long=LONG, billing=BILLING)
    )
    (tmp_path / "migrations" / "env.py").write_text(
        "from migrations_models import TENANCY, metadata\n" + request.param
    )
    (tmp_path / "migrations" / "script.py.mako").write_text(TEMPLATE)
    (versions / "legacy.py").write_text(
        LEGACY.format(
            schema=f"create schema {schema}".replace(":", "\\:"),
            rows=rows.replace(":", "\\:"),
            drop=f"drop schema {schema}".replace(":", "\\:"),
        )
    )
    (versions / "tenancy.py").write_text(
        TENANCY_REVISION.format(login=database.app_url.username, billing=BILLING)
    )
    project = Project(tmp_path, database, tenancy, run_alembic)
    project.run("upgrade", "head")
    return project


def test_adopter_walls_tables_off_with_one_generated_revision(
    project: Project, psql: Psql, execute: Execute
) -> None:
    """Autogenerate, upgrade, audit, check and downgrade, with names nobody would choose."""
    project.run("revision", "--autogenerate", "-m", "Wall off", "--rev-id", "walls")
    (generated,) = (project.folder / "migrations" / "versions").glob("walls*")
    revision = generated.read_text()
    for call in (
        "op.isolate_table('accounts', column='id')",
        f"op.isolate_table('{LONG}')",
        "op.isolate_table('Order % lines')",
        f"op.isolate_table('invoices', schema={BILLING!r})",
        f"op.isolate_table('members', column='Member of', schema={BILLING!r})",
    ):
        assert revision.count(call) == 1, revision
    assert revision.count("op.isolate_table(") == 5
    assert revision.count("op.expose_table(") == 5
    project.run("upgrade", "head")
    project.run("check")
    audited = audit(project, psql)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    project.run("downgrade", "base")
    left = (
        "select count(*) from pg_policies union all select count(*) from pg_class "
        "where relnamespace = 'public'::regnamespace and relkind = 'r'"
    )
    assert execute(project.database.owner_url, left) == [(0,), (1,)]
    project.run("upgrade", "head")
    assert audit(project, psql).returncode == 0


def audit(project: Project, psql: Psql) -> Result:
    tenancy = project.tenancy
    variables = {
        "tenant_column": tenancy.tenant_column,
        "id_type": tenancy.id_type,
        "organization_setting": tenancy.organization_setting,
        "user_setting": tenancy.user_setting,
        "app_role": tenancy.app_role,
        "authenticator_role": tenancy.authenticator_role,
        "root_table": tenancy.root_table,
    }
    arguments = [part for pair in variables.items() for part in ("-v", "=".join(pair))]
    # The table that declares itself as shared has the tenant column, which the audit reports.
    psql(project.database.owner_url, script="drop table if exists changelog")
    return psql(project.database.app_url, *arguments, "-f", str(ROOT / "sql" / "audit.sql"))


def test_adopter_sees_one_account_through_the_layer(project: Project) -> None:
    """The session layer binds the tenant where the database does not define its settings."""
    project.run("revision", "--autogenerate", "-m", "Wall off", "--rev-id", "walls")
    project.run("upgrade", "head")
    engine = create_tenant_engine(project.database.app_url, config=project.tenancy, mode="database")
    try:
        for account, rows in ((1, 1), (2, 2)):
            with Session(engine) as session:
                set_tenant(session, account)
                counted = session.scalar(text(f'select count(*) from "{LONG}"'))
                assert counted == rows
    finally:
        engine.dispose()


def test_lost_wall_in_another_schema_is_drift(project: Project, execute: Execute) -> None:
    """The comparison reads each schema that the models name."""
    project.run("revision", "--autogenerate", "-m", "Wall off", "--rev-id", "walls")
    project.run("upgrade", "head")
    schema = '"' + BILLING.replace('"', '""') + '"'
    owner = '"' + project.tenancy.owner_role.replace('"', '""') + '"'
    execute(
        project.database.owner_url,
        f"set local role {owner}",
        f"alter table {schema}.invoices no force row level security",
    )
    result = project.alembic(
        "check",
        folder=project.folder,
        DATABASE_URL=project.database.app_url,
        MIGRATION_DATABASE_URL=project.database.owner_url,
        PYTHONPATH=str(project.folder),
    )
    assert result.returncode != 0
    assert "'invoices')" in result.stdout

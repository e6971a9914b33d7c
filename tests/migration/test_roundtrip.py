"""The migrations up, down, online and as a script; and against the models."""

import io
import os
import re
from collections.abc import Callable

import pytest
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from tests.migration.conftest import Dump, Execute, Psql

from assay.models import Base
from tenantry.alembic import IsolateTableOp
from tenantry.models import tenant_table
from tenantry.rls import expected_isolation
from tenantry.testing import Database

Configure = Callable[[URL, URL], Config]

# The version table stays, empty: Alembic keeps it.
WITHOUT_VERSION = "--exclude-table=alembic_version"


@pytest.fixture
def config(empty_database: Database, alembic_config: Configure) -> Config:
    return alembic_config(empty_database.owner_url, empty_database.app_url)


def test_downgrade_to_base_leaves_the_database_as_it_was(
    empty_database: Database, config: Config, dump: Dump, execute: Execute
) -> None:
    """Up, down and up again: base is an untouched database, head the same both times."""
    untouched = dump(empty_database)
    command.upgrade(config, "head")
    head = dump(empty_database)
    command.downgrade(config, "base")
    assert dump(empty_database, WITHOUT_VERSION) == untouched
    assert execute(empty_database.owner_url, "select count(*) from alembic_version") == [(0,)]
    command.upgrade(config, "head")
    assert dump(empty_database) == head


def test_downgrade_keeps_roles_and_members(
    empty_database: Database, config: Config, execute: Execute
) -> None:
    """Roles belong to the whole server, so the application's login stays a member of its role."""
    command.upgrade(config, "head")
    command.downgrade(config, "base")
    member = "select pg_has_role(current_user, 'tenantry_app', 'member')"
    assert execute(empty_database.app_url, member) == [(True,)]


def test_each_revision_can_be_undone(empty_database: Database, config: Config, dump: Dump) -> None:
    """Each revision's downgrade restores exactly what its upgrade found."""
    revisions = list(ScriptDirectory.from_config(config).walk_revisions())
    for revision in reversed(revisions):
        before = dump(empty_database, WITHOUT_VERSION)
        command.upgrade(config, revision.revision)
        command.downgrade(config, "-1")
        assert dump(empty_database, WITHOUT_VERSION) == before, revision.revision
        command.upgrade(config, revision.revision)
    assert len(revisions) >= 6


def test_script_for_a_dba_makes_the_same_database(
    empty_database: Database, fresh_database: Database, config: Config, psql: Psql, dump: Dump
) -> None:
    """`alembic upgrade head --sql` through psql equals `alembic upgrade head`."""
    config.output_buffer = io.StringIO()
    command.upgrade(config, "head", sql=True)
    script = config.output_buffer.getvalue()
    result = psql(empty_database.owner_url, "-o", os.devnull, script=script)
    assert (result.returncode, result.stderr) == (0, "")
    assert dump(empty_database) == dump(fresh_database)


def test_downgrade_script_leaves_the_database_as_it_was(
    empty_database: Database, config: Config, psql: Psql, dump: Dump
) -> None:
    """`alembic downgrade head:base --sql` through psql equals `alembic downgrade base`."""
    untouched = dump(empty_database)
    command.upgrade(config, "head")
    config.output_buffer = io.StringIO()
    command.downgrade(config, "head:base", sql=True)
    script = config.output_buffer.getvalue()
    result = psql(empty_database.owner_url, "-o", os.devnull, script=script)
    assert (result.returncode, result.stderr) == (0, "")
    assert dump(empty_database, WITHOUT_VERSION) == untouched


def test_models_and_migrations_build_the_same_database(
    empty_database: Database,
    fresh_database: Database,
    config: Config,
    dump: Dump,
) -> None:
    """Tables created from the models and walled off from their metadata equal the revisions'."""
    command.upgrade(config, "20261122_settings")
    engine = create_engine(empty_database.owner_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("set local role tenantry_owner"))
        Base.metadata.create_all(connection)
        operations = Operations(MigrationContext.configure(connection))
        for table in Base.metadata.sorted_tables:
            declared = tenant_table(table)
            assert declared is not None, f"{table} is shared by all tenants"
            operation = IsolateTableOp(
                table.name, column=declared.column, reader_role=declared.reader_role
            )
            operations.invoke(operation)
    tables = [f"--table={table.name}" for table in Base.metadata.sorted_tables]
    assert in_any_order(dump(empty_database, *tables)) == in_any_order(
        dump(fresh_database, *tables)
    )


def in_any_order(schema: str) -> str:
    """Sort the columns of each table: a later revision can only add one at the end."""

    def columns_sorted(table: re.Match[str]) -> str:
        return "\n".join(sorted(line.rstrip(",") for line in table[0].splitlines()))

    return re.sub(r"^CREATE TABLE .*?^\);$", columns_sorted, schema, flags=re.DOTALL | re.MULTILINE)


def test_models_and_migrations_do_not_drift(
    fresh_database: Database, alembic_config: Configure
) -> None:
    """`alembic check` finds nothing to do at head."""
    command.check(alembic_config(fresh_database.owner_url, fresh_database.app_url))


def test_every_table_of_the_models_is_walled_off() -> None:
    """No table of Assay is shared by tenants, so none is left out of the policies."""
    tables = Base.metadata.sorted_tables
    assert tables
    assert [table.name for table in tables if expected_isolation(table) is None] == []

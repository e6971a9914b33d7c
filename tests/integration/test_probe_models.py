"""What the models say of tables, against what the probe looked at."""

import contextlib
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Column, MetaData, Table, Text, Uuid, select
from sqlalchemy.engine import URL
from tests.fixtures.logins import Account, Logins, make_logins
from tests.fixtures.worlds import A, B, add_tenant, cursor_of

from tenantry import (
    DEFAULT_CONFIG,
    Isolation,
    IsolationNotEnforcedError,
    MissingMigrationsError,
    create_tenant_engine,
    set_tenant,
    tenancy,
    tenant_info,
)
from tenantry.config import libpq_url
from tenantry.probe import probe
from tenantry.testing import Database

RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"


@pytest.fixture
def attacked(fresh_database: Database) -> Database:
    """Return a migrated database with rows of A and B."""
    for letter in "ab":
        add_tenant(fresh_database, letter)
    return fresh_database


@pytest.fixture
def logins(attacked: Database) -> Iterator[Logins]:
    """Return what makes logins for this test's database."""
    with make_logins(attacked) as logins:
        yield logins


@pytest.fixture
def login(logins: Logins) -> Account:
    """Return a login of the test's own, a member of the application's role."""
    return logins("tenantry_app")


def probed(url: URL, metadata: MetaData) -> Isolation:
    """Return what the probe says of a new connection, for these models."""
    with contextlib.closing(psycopg2.connect(libpq_url(url))) as connection:
        return probe(connection, DEFAULT_CONFIG, metadata)


def change(target: Database, *statements: str) -> None:
    """Change the database as a superuser would."""
    with cursor_of(target.superuser_url) as cursor:
        for statement in statements:
            cursor.execute(statement)


def inventory() -> tuple[MetaData, Any]:
    """Return metadata with a tenant table that is known by a column of its own name."""
    metadata = MetaData()
    table: Any = Table(
        "inventory",
        metadata,
        Column("customer_id", Uuid),
        Column("note", Text),
        info=tenant_info("customer_id"),
    )
    return metadata, table


INVENTORY = (
    "create table inventory (customer_id uuid, note text)",
    f"insert into inventory values ('{A}', 'of a'), ('{B}', 'of b')",
    "grant select, update on inventory to tenantry_app",
)
INVENTORY_WALL = (
    "alter table inventory enable row level security",
    "alter table inventory force row level security",
    f"create policy inventory_tenant on inventory "
    f"using ({RULE.replace('organization_id', 'customer_id')})",
)


def test_table_declared_by_another_column_is_found(attacked: Database, login: Account) -> None:
    """A table that only the models know as a tenant's needs a wall as any other does."""
    change(attacked, *INVENTORY)
    metadata, table = inventory()
    found = probed(login.url, metadata)
    assert [table.name for table in found.open_relations] == ["public.inventory"]
    engine = create_tenant_engine(login.url, mode="database", metadata=metadata)
    with pytest.raises(IsolationNotEnforcedError, match=r"public\.inventory"):
        engine.connect()
    change(attacked, *INVENTORY_WALL)
    assert probed(login.url, metadata).enforced
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert connection.execute(select(table.c.note)).scalars().all() == ["of a"]
    engine.dispose()


def test_view_of_something_else_is_not_seen(attacked: Database, login: Account) -> None:
    """A view that has the column, but shows no tenant table, is nobody's to vouch for."""
    change(
        attacked,
        *INVENTORY,
        "create view shown as select customer_id as organization_id, note from inventory",
        "grant select on shown to tenantry_app",
    )
    metadata = MetaData()
    Table("shown", metadata, Column("organization_id", Uuid), Column("note", Text))
    assert probed(login.url, metadata).missing_tables == ("shown",)


def read_unseen(login: Account) -> object:
    """Read a tenant table of which the engine was not told, in mode `database`."""
    _, table = inventory()
    engine = create_tenant_engine(login.url, mode="database")
    try:
        with engine.connect() as connection:
            set_tenant(connection, A)
            return connection.execute(select(table.c.note)).scalars().all()
    finally:
        engine.dispose()


def test_table_that_was_not_looked_at_is_refused(
    attacked: Database, login: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the models' metadata a statement on such a table is not executed on trust."""
    change(attacked, *INVENTORY)
    with pytest.raises(IsolationNotEnforcedError, match="was not looked at"):
        read_unseen(login)
    monkeypatch.setattr(tenancy, "check_seen", lambda _: None)
    assert read_unseen(login) == ["of a", "of b"]


def test_table_that_the_database_lacks_is_told(attacked: Database, login: Account) -> None:
    """A tenant table of the models' that does not exist is not taken for one that is walled off."""
    metadata, _ = inventory()
    assert probed(login.url, metadata).missing_tables == ("inventory",)
    engine = create_tenant_engine(login.url, mode="database", metadata=metadata)
    with pytest.raises(MissingMigrationsError, match="inventory"):
        engine.connect()


def test_view_with_the_tenant_column_is_mapped(attacked: Database, login: Account) -> None:
    """A view of the invoker's that is among the models is read like a table."""
    change(
        attacked,
        "create view shown with (security_invoker = true) as select * from test_sets",
        "grant select on shown to tenantry_app",
    )
    metadata = MetaData()
    view: Any = Table("shown", metadata, Column("organization_id", Uuid), Column("name", Text))
    assert probed(login.url, metadata).missing_tables == ()
    engine = create_tenant_engine(login.url, mode="database", metadata=metadata)
    with engine.connect() as connection:
        set_tenant(connection, A)
        assert set(connection.execute(select(view.c.name)).scalars()) == {"a1", "a2"}
    engine.dispose()

"""The matrix on somebody else's tables: other names, other ids, other settings, hostile names."""

import enum
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, ExcludeConstraint

from tenantry import TenancyConfig, create_tenant_engine, current_tenant, set_tenant
from tenantry.alembic import AssumeRoleOp, CreateTenancyRolesOp, IsolateTableOp
from tenantry.rls import quote_identifier
from tenantry.testing import Database, Server
from tenantry.testing.attacks_arena import Arena
from tenantry.testing.attacks_observer import Observer
from tenantry.testing.attacks_seeds import seed_tenant
from tenantry.testing.attacks_surfaces import Surface
from tenantry.testing.matrix import SURFACES, attacks, run_matrix

CONFIG = TenancyConfig(
    organization_setting="acme.tenant",
    user_setting="acme.person",
    tenant_column="tenant_id",
    root_table="Client Firms",
    id_type="bigint",
)


class Colour(enum.Enum):
    """A native enum with a value that needs quoting."""

    DARK = "it's dark"
    LIGHT = "li:ght"


METADATA = MetaData()


def tenant() -> Column[int]:
    """Return the tenant column as this project writes it."""
    return Column(
        "tenant_id", BigInteger, primary_key=True, server_default=text(current_tenant(CONFIG))
    )


ROOT = Table(
    "Client Firms",
    METADATA,
    Column("id", BigInteger, primary_key=True),
    Column('the "name"', Text, nullable=False),
)
COUNTRIES = Table("countries", METADATA, Column("code", String(2), primary_key=True))
SELECT = Table(
    "select",
    METADATA,
    tenant(),
    Column("order", Integer, primary_key=True, autoincrement=False),
    Column("from:here", String(40), nullable=False),
    Column("100%", Numeric(6, 2), nullable=False),
    Column("Colour", Enum(Colour, name="Colour of it"), nullable=False),
    Column("tags", ARRAY(Text), nullable=False),
    Column("document", JSON, nullable=False),
    Column("twice", Integer, Computed('"order" * 2', persisted=True)),
    Column("country", ForeignKey("countries.code"), nullable=False),
    ForeignKeyConstraint(["tenant_id"], ["Client Firms.id"]),
    UniqueConstraint("tenant_id", "from:here", name='unique "here"'),
    CheckConstraint('"100%" <= 100 and cardinality(tags) > 0'),
)
CHILDREN = Table(
    "Order Items; drop",
    METADATA,
    tenant(),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("where", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    # Without a name in the metadata, as most projects have them.
    ForeignKeyConstraint(
        ["tenant_id", "where"], ["select.tenant_id", "select.order"], initially="DEFERRED"
    ),
    UniqueConstraint("tenant_id", "where", "size", deferrable=True, initially="DEFERRED"),
    ForeignKeyConstraint(["tenant_id"], ["Client Firms.id"]),
    ExcludeConstraint(("tenant_id", "="), ("where", "="), using="btree"),
    CheckConstraint("size between 1 and 3"),
)
EVENTS = Table(
    "events",
    METADATA,
    tenant(),
    Column("at", Integer, primary_key=True, autoincrement=False),
    Column("note", Text, nullable=False),
    postgresql_partition_by="HASH (tenant_id)",
)
EXAMPLES = {"Order Items; drop.size": 2}


@pytest.fixture(scope="module")
def foreign_database(tenantry_server: Server) -> Iterator[Database]:
    """Return a database with those tables, isolated by the operations a migration calls."""
    database = tenantry_server.create_database()
    engine = create_engine(database.owner_url)
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection, opts={"tenancy": CONFIG}))
        connection.execute(text("create table alembic_version (version_num text)"))
        operations.invoke(CreateTenancyRolesOp([str(database.app_url.username)]))
        operations.invoke(AssumeRoleOp(CONFIG.owner_role))
        METADATA.create_all(connection)
        connection.execute(text("insert into countries values ('fr')"))
        connection.execute(
            text(
                "create table events_0 partition of events for values with (modulus 1, remainder 0)"
            )
        )
        connection.execute(
            text(f"grant select on countries to {quote_identifier(CONFIG.app_role)}")
        )
        operations.invoke(IsolateTableOp(ROOT.name, column="id"))
        operations.invoke(IsolateTableOp(SELECT.name))
        operations.invoke(IsolateTableOp(CHILDREN.name))
        operations.invoke(IsolateTableOp(EVENTS.name))
    engine.dispose()
    yield database
    database.drop()


@pytest.fixture(scope="module")
def arena(foreign_database: Database, unprivileged_app: None) -> Iterator[Arena]:
    """Return two of its tenants, 7 attacking 8."""
    engine = create_tenant_engine(
        foreign_database.app_url,
        config=CONFIG,
        mode="database",
        metadata=METADATA,
        pool_size=1,
        max_overflow=0,
    )
    for number in (7, 8):
        with engine.connect() as connection:
            set_tenant(connection, number)
            seed_tenant(connection, METADATA, number, config=CONFIG, examples=EXAMPLES)
            connection.commit()
    watching = create_engine(foreign_database.app_url)
    with ExitStack() as stack:
        stack.callback(watching.dispose)
        observer = Observer(watching, METADATA, CONFIG)
        yield stack.enter_context(Arena(engine, observer, attacker=7, victim=8, config=CONFIG))


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("table", [ROOT.name, SELECT.name, CHILDREN.name, EVENTS.name])
def test_no_attack_on_a_foreign_table_gets_through(
    arena: Arena, table: str, surface: Surface
) -> None:
    """The attacks need nothing of Assay's: neither its names nor its types of ids and columns."""
    outcomes = run_matrix(arena, attacks(arena, tables=[table], surfaces=[surface]))
    assert len(outcomes) >= 6 * 12
    assert [str(outcome) for outcome in outcomes if not outcome.stopped] == []
    assert arena.changed_tables() == []


def test_shared_table_is_left_alone(arena: Arena) -> None:
    """A table without the tenant column is no target."""
    assert set(arena.targets) == {ROOT.name, SELECT.name, CHILDREN.name, EVENTS.name}

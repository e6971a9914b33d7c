"""A table says whose it is in one of three ways, and its keys and references carry the tenant."""

import uuid
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKeyConstraint, MetaData, Table, Text, Uuid, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateIndex, CreateTable

from tenantry import (
    ConfigurationError,
    TenancyConfig,
    TenantMixin,
    current_tenant,
    shared_info,
    tenant_index,
    tenant_info,
    tenant_reference,
)
from tenantry.models import TenantTable, extends_tenant_table, tenant_column, tenant_table

DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]


def table(name: str, *columns: str, info: dict[str, Any] | None = None) -> Table:
    """Return a table of uuid columns."""
    return Table(name, MetaData(), *(Column(column, Uuid) for column in columns), info=info)


def ddl(element: CreateTable | CreateIndex) -> str:
    """Return the statement in one line."""
    return " ".join(str(element.compile(dialect=DIALECT)).split())


def test_table_with_the_tenant_column_is_a_tenants() -> None:
    """The column alone makes a tenant table."""
    found = tenant_table(table("notes", "organization_id", "id"))
    assert found == TenantTable("organization_id")


def test_root_table_is_a_tenants_by_its_id() -> None:
    """The table of organizations belongs to each of them by its own id."""
    organizations = table("organizations", "id")
    assert tenant_table(organizations) == TenantTable("id")
    column = tenant_column(organizations)
    assert column is organizations.c.id


def test_other_tables_are_shared() -> None:
    """Without the column and without a declaration a table is everybody's."""
    assert tenant_table(table("countries", "id")) is None
    assert tenant_column(table("countries", "id")) is None


def test_declaration_wins() -> None:
    """A table may name its column, have a reader, or be shared in spite of its column."""
    assert tenant_table(table("notes", "owner", info=tenant_info("owner"))) == TenantTable("owner")
    read = tenant_table(table("notes", "organization_id", info=tenant_info(reader_role="reader")))
    assert read == TenantTable("organization_id", "reader")
    assert tenant_table(table("notes", "organization_id", info=shared_info())) is None


def test_declared_column_must_exist() -> None:
    """A misspelt declaration is an error, not a table without a wall."""
    with pytest.raises(ConfigurationError, match=r"'notes'.*'owner'"):
        tenant_table(table("notes", "organization_id", info=tenant_info("owner")))


def test_column_is_known_by_its_name_in_the_database() -> None:
    """Another key in Python does not hide the tenant column."""
    notes = Table("notes", MetaData(), Column("organization_id", Uuid, key="tenant"))
    assert tenant_table(notes) == TenantTable("organization_id")
    assert tenant_column(notes) is notes.c.tenant


def test_names_come_from_the_configuration() -> None:
    """Another project has other names for the same."""
    config = TenancyConfig(tenant_column="customer_id", root_table="customers")
    assert tenant_table(table("notes", "customer_id"), config) == TenantTable("customer_id")
    assert tenant_table(table("customers", "id"), config) == TenantTable("id")
    assert tenant_table(table("notes", "organization_id"), config) is None


def test_child_of_a_tenant_table_without_the_column_is_recognised() -> None:
    """A table that shares the key of a tenant's row, but not its tenant, has no wall of its own."""
    metadata = MetaData()
    Table("notes", metadata, Column("id", Uuid, primary_key=True), Column("organization_id", Uuid))
    child = Table(
        "long_notes",
        metadata,
        Column("id", Uuid, primary_key=True),
        ForeignKeyConstraint(["id"], ["notes.id"]),
    )
    assert extends_tenant_table(child)
    assert not extends_tenant_table(table("countries", "id"))


def test_current_tenant_is_the_one_expression() -> None:
    """Policies and defaults read the setting so that '' and an undefined one mean nobody."""
    assert current_tenant() == (
        "nullif(current_setting('app.current_organization', true), '')::uuid"
    )
    config = TenancyConfig(organization_setting="my.tenant", id_type="bigint")
    assert current_tenant(config) == "nullif(current_setting('my.tenant', true), '')::bigint"


def test_mixin_leads_the_key_with_the_tenant() -> None:
    """`TenantMixin` makes (organization_id, id) the key, and the database fills both."""

    class Base(DeclarativeBase):
        pass

    class Note(TenantMixin, Base):
        __tablename__ = "notes"
        body: Mapped[str] = mapped_column(Text)

    statement = ddl(CreateTable(Note.metadata.tables["notes"]))
    assert "PRIMARY KEY (organization_id, id)" in statement
    assert f"organization_id UUID DEFAULT {current_tenant()} NOT NULL" in statement
    assert "id UUID DEFAULT gen_random_uuid() NOT NULL" in statement
    assert list(Note.metadata.tables["notes"].c.keys()) == ["organization_id", "id", "body"]
    assert isinstance(Note.metadata.tables["notes"].c.id.type.python_type(int=1), uuid.UUID)


@pytest.mark.parametrize(
    ("ondelete", "rendered"),
    [
        ("NO ACTION", "ON DELETE NO ACTION"),
        ("CASCADE", "ON DELETE CASCADE"),
        ("set null", "ON DELETE SET NULL (note_id)"),
    ],
)
def test_reference_carries_the_tenant(ondelete: str, rendered: str) -> None:
    """A foreign key has the tenant on both sides; SET NULL leaves the tenant column alone."""
    metadata = MetaData()
    for name, columns in (("notes", ("organization_id", "id")), ("tags", ("id", "note_id"))):
        Table(name, metadata, *(Column(column, Uuid) for column in columns))
    tags = metadata.tables["tags"]
    tags.append_column(Column("organization_id", Uuid))
    tags.append_constraint(tenant_reference("notes", "note_id", ondelete=ondelete))
    assert (
        "FOREIGN KEY(organization_id, note_id) REFERENCES notes (organization_id, id) " + rendered
    ) in ddl(CreateTable(tags))


def test_reference_into_another_schema_with_another_column() -> None:
    """Schema and tenant column are the caller's to name."""
    metadata = MetaData()
    Table("notes", metadata, Column("customer_id", Uuid), Column("id", Uuid), schema="app")
    tags = Table("tags", metadata, Column("customer_id", Uuid), Column("note_id", Uuid))
    tags.append_constraint(tenant_reference("app.notes", "note_id", tenant_column="customer_id"))
    assert "REFERENCES app.notes (customer_id, id)" in ddl(CreateTable(tags))


def test_index_is_led_by_the_tenant() -> None:
    """Each tenant pays for its own rows: the tenant comes first in every index."""
    notes = Table(
        "notes",
        MetaData(),
        Column("organization_id", Uuid),
        Column("name", Text, server_default=text("''")),
        tenant_index("ix_notes_name", "name"),
    )
    (index,) = notes.indexes
    assert ddl(CreateIndex(index)) == "CREATE INDEX ix_notes_name ON notes (organization_id, name)"

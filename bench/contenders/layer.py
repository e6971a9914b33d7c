"""Tenantry, with the wall that its own migrations build."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import URL, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.schema import CreateIndex, CreateTable

import tenantry.alembic  # noqa: F401 - registers the operations
from bench.contenders.work import Contender, ItemColumns, Places, Size, fill
from tenantry import TenancyError, TenantMixin, create_tenant_engine, set_tenant, tenant_index


class Base(DeclarativeBase):
    """Its models."""


class Item(ItemColumns, TenantMixin, Base):
    """An item."""

    __tablename__ = "items"
    __table_args__ = (tenant_index("items_created", "created_at"),)


def prepare(places: Places, size: Size) -> None:
    """Make, wall off and fill the table."""
    with create_engine(places.owner).begin() as connection:
        op: Any = Operations(MigrationContext.configure(connection))
        op.execute("create table alembic_version (version_num varchar(32) primary key)")
        op.create_tenancy_roles([str(places.app.username)])
        op.assume_owner()
        table: Any = Item.__table__
        op.execute(CreateTable(table))
        for index in table.indexes:
            op.execute(CreateIndex(index))
        op.isolate_table("items")
    fill(places, size, "organization_id")


def open_contender(url: URL, option: str) -> Contender:
    """Return the contender: with the defaults, or with 'scope way'."""
    options: dict[str, Any] = {}
    if option:
        options["scope"], options["context"] = option.split()
    engine = create_tenant_engine(url, mode="database", metadata=Base.metadata, **options)

    @contextmanager
    def session(tenant: uuid.UUID) -> Iterator[Session]:
        with Session(engine) as session:
            set_tenant(session, tenant)
            yield session

    return Contender(engine, Item, session, refusals=(SQLAlchemyError, TenancyError))

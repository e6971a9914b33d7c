"""The package `sqlalchemy-tenants`: a role for each tenant, which the Session sets."""

import uuid

from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.operations.ops import DowngradeOps, MigrationScript, UpgradeOps
from sqlalchemy import URL, Index, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy_tenants import get_process_revision_directives, with_rls
from sqlalchemy_tenants.managers import PostgresManager

from bench.contenders.work import Contender, ItemColumns, Places, Row, Size, fill


class Base(DeclarativeBase):
    """Its models."""


@with_rls
class Item(ItemColumns, Base):
    """An item; the package wants the column's name."""

    __tablename__ = "items"
    __table_args__ = (Index("items_created", "tenant", "created_at"),)

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, sort_order=-20)
    tenant: Mapped[uuid.UUID] = mapped_column(sort_order=-10)


def prepare(places: Places, size: Size) -> None:
    """Make the table as the package's revision does, a role for each tenant, and the rows."""
    engine = create_engine(places.owner)
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection)
        upgrade = UpgradeOps([])
        script = MigrationScript("0001", upgrade, DowngradeOps([]))
        get_process_revision_directives(Base.metadata)(context, "head", [script])
        for operation in upgrade.ops:
            Operations(context).invoke(operation)
    manager = PostgresManager.from_engine(engine, schema_name="public")
    for number in range(1, size.tenants + 1):
        manager.create_tenant(Row(number, 1).owner)
    fill(places, size, "tenant")


def open_contender(url: URL, option: str) -> Contender:
    """Return the contender; it has no options."""
    engine = create_engine(url)
    manager = PostgresManager.from_engine(engine, schema_name="public")
    return Contender(
        engine,
        Item,
        session=lambda tenant: manager.new_tenant_session(tenant, create_if_missing=False),
        tenant_column="tenant",
    )

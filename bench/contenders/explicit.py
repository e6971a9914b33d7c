"""No wall: the program filters every query by the tenant itself."""

import uuid

from sqlalchemy import URL, Index, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.contenders.work import Contender, ItemColumns, Places, Size, admit, fill


class Base(DeclarativeBase):
    """Its models."""


class Item(ItemColumns, Base):
    """An item."""

    __tablename__ = "items"
    __table_args__ = (Index("items_created", "organization_id", "created_at"),)

    organization_id: Mapped[uuid.UUID] = mapped_column(primary_key=True, sort_order=-20)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, sort_order=-10)


def prepare(places: Places, size: Size) -> None:
    """Make and fill the table."""
    Base.metadata.create_all(create_engine(places.owner))
    admit(places)
    fill(places, size, "organization_id")


def open_contender(url: URL, option: str) -> Contender:
    """Return the contender; it has no options."""
    engine = create_engine(url)
    return Contender(
        engine,
        Item,
        session=lambda tenant: Session(engine),
        mine=lambda tenant: (Item.organization_id == tenant,),
    )

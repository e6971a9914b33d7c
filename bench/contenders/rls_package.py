"""The package `rls`: policies declared on the model, a Session with a context."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import BaseModel, ConfigDict
from rls.register_rls import register_rls
from rls.rls_session import RlsSession
from rls.schemas import Command, ConditionArg, Permissive
from sqlalchemy import URL, UUID, Index, column, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.contenders.work import Contender, ItemColumns, Places, Size, admit, fill


class Base(DeclarativeBase):
    """Its models."""


class Item(ItemColumns, Base):
    """An item. Its key is the id alone: under this policy no index led by the tenant is used."""

    __tablename__ = "items"
    __table_args__ = (
        Index("items_created", "organization_id", "created_at"),
        Index("items_created_alone", "created_at"),
    )
    __rls_policies__ = (
        Permissive(
            condition_args=[ConditionArg(comparator_name="organization_id", type=UUID)],
            cmd=[Command.all],
            custom_expr=lambda tenant: column("organization_id") == tenant,
            custom_policy_name="tenant",
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, sort_order=-20)
    organization_id: Mapped[uuid.UUID] = mapped_column(sort_order=-10)


class Context(BaseModel):
    """The tenant; frozen, as the quicker of the two ways that the package has."""

    model_config = ConfigDict(frozen=True)

    organization_id: uuid.UUID


def prepare(places: Places, size: Size) -> None:
    """Make the table with its policies, and fill it."""
    register_rls(Base)
    Base.metadata.create_all(create_engine(places.owner))
    admit(places)
    fill(places, size, "organization_id")


def open_contender(url: URL, option: str) -> Contender:
    """Return the contender; it has no options."""
    engine = create_engine(url)

    @contextmanager
    def session(tenant: uuid.UUID) -> Iterator[Session]:
        with RlsSession(context=Context(organization_id=tenant), bind=engine) as session:
            yield session

    return Contender(engine, Item, session)

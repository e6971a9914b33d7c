"""A schema for each tenant, named to the server by search_path or to SQLAlchemy by a map."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from bench.contenders.work import (
    FIRST,
    ITEMS,
    ROWS,
    TENANTS,
    Contender,
    ItemColumns,
    Places,
    Size,
    opened,
)


class Base(DeclarativeBase):
    """Its models."""


class Item(ItemColumns, Base):
    """An item, of whose tenant only the schema tells."""

    __tablename__ = "items"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, sort_order=-10)


class TenantSession(Session):
    """A Session for the schema in its `info`."""


@event.listens_for(TenantSession, "after_begin")
def _name_schema(session: Session, _: object, connection: Connection) -> None:
    connection.exec_driver_sql(f'set local search_path = "{session.info["schema"]}"')


def schema_of(tenant: uuid.UUID) -> str:
    """Return the schema's name."""
    return f"tenant_{tenant}"


def prepare(places: Places, size: Size) -> None:
    """Make and fill the tables, some in each transaction, since each is locked until its end."""
    with opened(places.owner) as connection:
        for first in range(1, size.tenants + 1, 100):
            connection.exec_driver_sql(
                f"""
                do $$
                declare
                    schema text;
                begin
                    for t in {first} .. {min(first + 99, size.tenants)} loop
                        schema := pg_catalog.format('tenant_%s%s', '{TENANTS}', {FIRST} + t);
                        execute pg_catalog.format('create schema %I', schema);
                        execute pg_catalog.format('grant usage on schema %I to %I', schema,
                            '{places.app.username}');
                        execute pg_catalog.format('create table %I.items (id uuid primary key,
                            name text not null, amount integer not null,
                            created_at timestamp not null)', schema);
                        execute pg_catalog.format('create index on %I.items (created_at)', schema);
                        execute pg_catalog.format('grant select, insert, update, delete
                            on %I.items to %I', schema, '{places.app.username}');
                        execute pg_catalog.format('insert into %I.items
                            select (%L || {FIRST} + {ROWS} * %s + n)::uuid, ''item '' || n, 0,
                                timestamp ''2025-01-01'' + n * interval ''1 minute''
                            from generate_series(1, {size.rows}) as n', schema, '{ITEMS}', t);
                    end loop;
                end
                $$
                """.replace("%", "%%")
            )
        connection.exec_driver_sql("vacuum analyze")


def open_contender(url: URL, option: str) -> Contender:
    """Return the contender that names the schema by 'search_path' or by a 'map'."""
    engine = create_engine(url)

    @contextmanager
    def by_path(tenant: uuid.UUID) -> Iterator[Session]:
        with TenantSession(engine, info={"schema": schema_of(tenant)}) as session:
            yield session

    @contextmanager
    def by_map(tenant: uuid.UUID) -> Iterator[Session]:
        mapped: Any = {None: schema_of(tenant)}
        with Session(engine.execution_options(schema_translate_map=mapped)) as session:
            yield session

    ways = {"search_path": by_path, "map": by_map}
    return Contender(engine, Item, ways[option], tenant_column=None)

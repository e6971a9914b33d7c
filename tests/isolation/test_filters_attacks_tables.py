"""Where filters are the only wall: Tables that hide whose rows they show."""

import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
    column,
    delete,
    exists,
    insert,
    select,
    table,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.fixtures.attacks import (
    Attack,
    attacked_world,
    check_confined,
    check_refused,
    loot,
    orm,
    partial,
    unwalled_engine,
)
from tests.fixtures.worlds import A, B, World, cursor_of

from assay.models import Test
from tenantry import UnfilterableStatementError, tenant_info
from tenantry.filters import Filtering, FilteringCompiler
from tenantry.testing import Server

tests: Any = Test.__table__


class Inherited(DeclarativeBase):
    """Models whose subclass has a table without the tenant column."""


class Employee(Inherited):
    """A row of a tenant's."""

    __tablename__ = "employees"

    id: Mapped[int] = mapped_column(primary_key=True)
    organization_id: Mapped[uuid.UUID]
    kind: Mapped[str]
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}  # noqa: RUF012


class Manager(Employee):
    """The other half of it, whose table says nothing of the tenant."""

    __tablename__ = "managers"

    id: Mapped[int] = mapped_column(ForeignKey("employees.id"), primary_key=True)
    note: Mapped[str]
    __mapper_args__ = {"polymorphic_identity": "manager"}  # noqa: RUF012


managers: Any = Manager.__table__

SETUP = f"""
create schema one;
create schema two;
create table one.things (organization_id uuid, id int);
create table two.things (organization_id uuid, id int);
create table one.others (organization_id uuid, id int);
create table two.others (id int);
create table notes (note text);
create table two.notes (organization_id uuid, note text);
create table employees (id int primary key, organization_id uuid, kind text);
create table managers (id int primary key references employees, note text);
create view naked as select prompt from tests;
create view dressed as select organization_id, prompt from tests;
create materialized view frozen as select prompt from tests;
insert into one.things values ('{A}', 1), ('{A}', 2), ('{B}', 7);
insert into two.things values ('{A}', 2), ('{B}', 1);
insert into two.notes values ('{B}', 'secret of b');
insert into notes values ('nobody''s');
insert into employees values (1, '{A}', 'manager'), (2, '{B}', 'manager');
insert into managers values (1, 'secret of a'), (2, 'secret of b');
analyze tests;
grant usage on schema one, two to tenantry_app;
grant all on all tables in schema public, one, two to tenantry_app;
"""


def thing(name: str, schema: str) -> Any:
    """Return a tenant table of a schema of its own."""
    return partial(name, Column("organization_id", Uuid), Column("id", Integer), schema=schema)


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the attacks of this module are after, and relations that show them."""
    with attacked_world(tenantry_server, tenantry_template) as world:
        with cursor_of(world.open.superuser_url) as cursor:
            cursor.execute(SETUP)
        yield world


@pytest.fixture(params=["filters", "auto"])
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine without the database's wall, asked for filters or fallen back on them."""
    with unwalled_engine(world, request.param) as engine:
        yield engine


def prompts(name: str = "tests", **options: Any) -> Table:
    """Return a Table of this name that has one column."""
    return partial(name, Column("prompt", Text), **options)


def translated(connection: Connection, schemas: dict[str | None, str | None]) -> Connection:
    """Return the Connection, on which one schema stands for another."""
    return connection.execution_options(schema_translate_map=schemas)


HIDDEN: dict[str, Attack] = {
    "select": lambda c: c.execute(select(prompts())),
    "alias": lambda c: c.execute(select(prompts().alias("harmless"))),
    "with its schema": lambda c: c.execute(select(prompts(schema="public"))),
    "update": lambda c: c.execute(update(prompts()).values(prompt="x")),
    "delete": lambda c: c.execute(delete(prompts())),
    "delete, alias": lambda c: c.execute(delete(cast("Any", prompts()).alias("harmless"))),
    "insert": lambda c: c.execute(insert(prompts()).values(prompt="x")),
    "root table": lambda c: c.execute(select(partial("organizations", Column("name", Text)))),
    "reflected in part": lambda c: c.execute(
        select(Table("tests", MetaData(), autoload_with=c, include_columns=["id", "prompt"]))
    ),
    "table()": lambda c: c.execute(select(table("tests", column("prompt")))),
    "table(), update": lambda c: c.execute(
        update(table("tests", column("prompt"))).values(prompt="x")
    ),
    "declared by another column": lambda c: c.execute(
        select(partial("tests", Column("id", Uuid), Column("prompt"), info=tenant_info("id")))
    ),
    "declared by another column, insert": lambda c: c.execute(
        insert(
            partial(
                "users",
                *(Column("id", Uuid), Column("organization_id", Uuid)),
                *(Column("email", Text), Column("name", Text)),
                info=tenant_info("id"),
            )
        ).values(organization_id=B, email="x@example.org", name="planted")
    ),
    "view": lambda c: c.execute(select(prompts("naked"))),
    "materialized view": lambda c: c.execute(select(prompts("frozen"))),
    "unknown table": lambda c: c.execute(select(prompts("nowhere"))),
    "statistics": lambda c: c.execute(
        select(partial("pg_stats", Column("most_common_vals", Text), schema="pg_catalog"))
    ),
    "statistics, by the search path": lambda c: c.execute(
        select(partial("pg_stats", Column("most_common_vals", Text)))
    ),
    "activity": lambda c: c.execute(
        select(partial("pg_stat_activity", Column("query", Text), schema="pg_catalog"))
    ),
    "joined inheritance": lambda c: c.execute(select(managers.c.note)),
    "joined inheritance, ORM": orm(lambda s: s.execute(select(Manager.note))),
    "joined inheritance, update": lambda c: c.execute(update(managers).values(note="x")),
    "joined inheritance, delete": lambda c: c.execute(delete(managers)),
    "tenants' in another schema": lambda c: c.execute(select(partial("notes", Column("note")))),
    "translated to another schema": lambda c: translated(c, {"public": "two"}).execute(
        select(partial("notes", Column("note", Text), schema="public"))
    ),
    "translated from the catalog": lambda c: translated(c, {"pg_catalog": "public"}).execute(
        select(prompts(schema="pg_catalog"))
    ),
}


@pytest.mark.parametrize("attack", HIDDEN.values(), ids=HIDDEN)
def test_table_that_nobody_vouches_for_is_refused(
    world: World, engine: Engine, attack: Attack
) -> None:
    """A Table without its tenant column passes only if the catalog knows it as everybody's."""
    check_refused(world.open, engine, attack, UnfilterableStatementError)


KNOWN: dict[str, Attack] = {
    "column by another key": lambda c: c.execute(
        select(partial("tests", Column("organization_id", Uuid, key="org"), Column("prompt")))
    ),
    "reflected": lambda c: c.execute(select(Table("tests", MetaData(), autoload_with=c).c.prompt)),
    "with its schema": lambda c: c.execute(
        select(partial("tests", Column("organization_id", Uuid), Column("prompt"), schema="public"))
    ),
    "view with the tenant column": lambda c: c.execute(
        select(partial("dressed", Column("organization_id", Uuid), Column("prompt", Text)))
    ),
    "alias of an alias": lambda c: c.execute(select(tests.alias("t").alias("u").c.prompt)),
    "translated": lambda c: translated(c, {None: "public"}).execute(select(tests.c.prompt)),
    "copied to other metadata": lambda c: c.execute(select(tests.to_metadata(MetaData()).c.prompt)),
}


@pytest.mark.parametrize("attack", KNOWN.values(), ids=KNOWN)
def test_table_with_its_tenant_column_is_filtered(
    world: World, engine: Engine, attack: Attack
) -> None:
    """However a Table comes by its tenant column, the own rows are shown and no others."""
    assert "secret of a" in check_confined(world.open, engine, attack)


def test_shared_table_is_read(engine: Engine) -> None:
    """A table that the catalog knows as everybody's passes, as do the server's own."""
    notes = partial("notes", Column("note", Text), schema="public")
    assert loot(engine, lambda c: c.execute(select(notes))) == """[("nobody's",)]"""
    names = partial("pg_namespace", Column("nspname", Text), schema="pg_catalog")
    assert "pg_toast" in loot(engine, lambda c: c.execute(select(names)))


def twins(inner: Any, outer: Any) -> Any:
    """Select what one table has and the other has not."""
    return select(outer.c.id).where(~exists().where(inner.c.id == outer.c.id))


TWINS: dict[str, Any] = {
    "two tenant tables": twins(thing("things", "two"), thing("things", "one")),
    "a tenant table and a shared one": twins(
        partial("others", Column("id", Integer), schema="two"), thing("others", "one")
    ),
    "an alias": twins(thing("things", "two").alias("things"), thing("things", "one")),
    "a sub-query": twins(select(tests.c.id).subquery("things"), thing("things", "one")),
    "a CTE": twins(select(tests.c.id).cte("things"), thing("things", "one")),
    "an update": update(thing("things", "one"))
    .values(id=9)
    .where(exists().where(thing("things", "two").c.id == thing("things", "one").c.id)),
    "a delete": delete(things := thing("things", "one")).where(
        exists().where(thing("things", "two").alias("things").c.id == things.c.id)
    ),
}


@pytest.mark.parametrize("statement", TWINS.values(), ids=TWINS)
def test_two_things_of_one_name_are_refused(world: World, engine: Engine, statement: Any) -> None:
    """A schema's table goes by its bare name: nothing else may, or conditions would mean it."""
    check_refused(world.open, engine, lambda c: c.execute(statement), UnfilterableStatementError)


def test_one_of_two_schemas_is_read(engine: Engine) -> None:
    """Each of two tables of the same name is filtered by itself, and joined under an alias."""
    one, two = thing("things", "one"), thing("things", "two").alias("others")
    statement = select(one.c.id).join(two, one.c.id == two.c.id, isouter=True).order_by(one.c.id)
    assert loot(engine, lambda c: c.execute(statement)) == "[(1,), (2,)]"


def test_without_the_catalog_a_hidden_table_is_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the catalog vouches for is what holds: without it A reads B's rows."""
    monkeypatch.setattr(Filtering, "is_shared", lambda *_, **__: True)
    with unwalled_engine(world) as engine:
        for attack in ("select", "root table", "view", "translated to another schema"):
            with pytest.raises(pytest.fail.Exception):
                check_refused(world.open, engine, HIDDEN[attack], UnfilterableStatementError)


def test_without_the_names_two_things_of_one_name_are_mistaken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noting the names is what holds: without it a condition compares a table with itself."""
    monkeypatch.setattr(FilteringCompiler, "_note_name", lambda *_, **__: None)
    with unwalled_engine(world) as engine:
        seen = loot(engine, lambda c: c.execute(TWINS["two tenant tables"]))
        assert seen != "[(1,)]"

"""Where filters are the only wall: text that could hold a query of its own, wherever it is put."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy.sql.ddl
from sqlalchemy import (
    ARRAY,
    Column,
    Engine,
    Numeric,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    case,
    cast,
    column,
    delete,
    extract,
    func,
    insert,
    literal,
    literal_column,
    null,
    quoted_name,
    schema,
    select,
    tablesample,
    text,
    true,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, column_property
from sqlalchemy.sql.ddl import ExecutableDDLElement
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.types import UserDefinedType
from tests.fixtures.attacks import (
    Attack,
    attacked_world,
    check_refused,
    orm,
    partial,
    unwalled_engine,
)
from tests.fixtures.worlds import World

from assay.models import Test, TestSet
from tenantry import UnfilterableStatementError, phrases
from tenantry.refusals import RefusingCompiler
from tenantry.testing import Server

tests: Any = Test.__table__
sets: Any = TestSet.__table__

command: Any = sqlalchemy.DDL

QUERY = "(select string_agg(prompt, ',') from tests)"


class Custom(ColumnElement[str]):
    """A construct that the application compiles itself."""

    inherit_cache = True
    type = Text()


@compiles(Custom)
def compile_custom(*_: Any, **__: Any) -> str:
    """Render a query that nobody filters."""
    return QUERY


class CustomDDL(ExecutableDDLElement):
    """A command that the application compiles itself."""


@compiles(CustomDDL)
def compile_custom_ddl(*_: Any, **__: Any) -> str:
    """Render a command that nobody filters."""
    return "update tests set category = 'x'"


class Worded(UserDefinedType[str]):
    """A type whose words are more than its name."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        """Return what stands behind AS in a CAST."""
        return f"text) || {QUERY} || cast('' as text"


class Selected(TypeDecorator[str]):
    """A type whose columns are selected by way of a construct of the application's."""

    impl = Text
    cache_ok = True

    def column_expression(self, _: Any) -> Any:
        """Return what is selected in place of the column."""
        return Custom()


class Bound(TypeDecorator[str]):
    """A type whose values are passed by way of a construct of the application's."""

    impl = Text
    cache_ok = True

    def bind_expression(self, _: Any) -> Any:
        """Return what is passed in place of the value."""
        return Custom()


class Mapped(DeclarativeBase):
    """Models with a construct of the application's behind an attribute."""


class Note(Mapped):
    """A test, and what a construct makes of it."""

    __table__ = Table(
        "tests",
        Mapped.metadata,
        Column("organization_id", Uuid, primary_key=True),
        Column("id", Uuid, primary_key=True),
    )
    all_prompts = column_property(Custom())


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the attacks of this module are after."""
    with attacked_world(tenantry_server, tenantry_template) as world:
        yield world


@pytest.fixture(params=["filters", "auto"])
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine without the database's wall, asked for filters or fallen back on them."""
    with unwalled_engine(world, request.param) as engine:
        yield engine


def unquoted(name: str) -> quoted_name:
    """Return a name that SQLAlchemy is told not to quote."""
    return quoted_name(name, quote=False)


def table_as(statement: Any) -> Any:
    """Return the command that makes a table of a query, where this SQLAlchemy has it."""
    kind = getattr(sqlalchemy.sql.ddl, "CreateTableAs", None)
    return command("create table copy as select 1") if kind is None else kind(statement, "copy")


def hidden_default() -> Table:
    """Return a Table with a default that is executed before the INSERT."""
    return partial(
        "users",
        Column("organization_id", Uuid),
        Column("email", Text, primary_key=True, default=literal_column(f"{QUERY} || '@x'")),
        Column("name", Text),
        implicit_returning=False,
    )


INTERVAL = postgresql.INTERVAL(fields=f") :: text || {QUERY} || cast('' as text")
WORDED_LENGTH: Any = f"9)) || {QUERY} || cast('' as varchar(9"

SELECTED: dict[str, Any] = {
    "text()": text(QUERY),
    "literal column": literal_column(QUERY),
    "query_to_xml": func.query_to_xml("select prompt from tests", True, False, ""),
    "table_to_xml": func.TABLE_TO_XML("tests", True, False, ""),
    "xpath_table": func.xpath_table("id", "prompt", "tests", "/", "true"),
    "ts_stat": func.ts_stat("select to_tsvector(prompt) from tests").table_valued("word").c.word,
    "pg_read_file": func.pg_read_file("PG_VERSION"),
    "pg_catalog.pg_read_file": func.pg_catalog.pg_read_file("PG_VERSION"),
    "large object": func.lo_get(1),
    "dblink": func.dblink("dbname=x", "select 1").table_valued("x").c.x,
    "set_config": func.set_config("app.current_organization", "", True),
    "statements": func.pg_stat_statements(true()).table_valued("query").c.query,
    "function of another schema": func.other_schema.f(),
    "function by a name of two": getattr(func, unquoted("other_schema.f"))(),
    "function by a name of many": getattr(func, unquoted(f"{QUERY} || concat"))("x"),
    "column that is not quoted": column(unquoted(QUERY)),
    "label that is not quoted": literal(1).label(unquoted(f"x, {QUERY}")),
    "collation that is not quoted": literal("x").collate(unquoted(f'"C", {QUERY}')),
    "operator": tests.c.prompt.op("from tests union all select")(null()),
    "operator, boolean": tests.c.prompt.bool_op("from tests union all select")(null()),
    "operator and a comment": tests.c.prompt.op("/* */ from tests --")(null()),
    "EXTRACT": extract(f"epoch from now()), {QUERY}, extract(epoch", func.now()),
    "interval": cast(literal("x"), INTERVAL),
    "array of intervals": cast(literal("x"), ARRAY(INTERVAL)),
    "length": cast(literal("x"), String(WORDED_LENGTH)),
    "precision": cast(literal("x"), Numeric(WORDED_LENGTH)),
    "type of its own words": cast(literal("x"), Worded()),
    "empty array": postgresql.array([], type_=String(WORDED_LENGTH)),
    "sample": tablesample(tests, 100).c.prompt,
    "construct": Custom(),
    "construct, nested": select(Custom()).scalar_subquery(),
    "construct, in a condition": case((Custom() == "x", 1)),
    "construct, of a type": partial(
        "tests", Column("organization_id", Uuid), Column("prompt", Selected)
    ).c.prompt,
    "construct, of a value": literal("x", Bound()),
}


@pytest.mark.parametrize("selected", SELECTED.values(), ids=SELECTED)
def test_selected_text_is_refused(world: World, engine: Engine, selected: Any) -> None:
    """A query that hides in a selected expression is not executed."""
    check_refused(
        world.open, engine, lambda c: c.execute(select(selected)), UnfilterableStatementError
    )


TEXTS: dict[str, Attack] = {
    "prefix": lambda c: c.execute(select(tests.c.prompt).prefix_with(QUERY, ",")),
    "suffix": lambda c: c.execute(select(tests.c.id).suffix_with("union select id from tests")),
    "hint": lambda c: c.execute(select(tests.c.prompt).with_hint(tests, "ONLY")),
    "statement hint": lambda c: c.execute(
        select(tests.c.prompt).with_statement_hint("union all select prompt from tests")
    ),
    "alias that is not quoted": lambda c: c.execute(
        select(column("prompt")).select_from(sets.alias(unquoted("x, tests")))
    ),
    "CTE that is not quoted": lambda c: c.execute(
        select(select(literal(1).label("a")).cte(unquoted("x as (select 1), y")).c.a)
    ),
    "types of a function's columns": lambda c: c.execute(
        select(
            func.json_to_recordset("[]")
            .table_valued(column("x", Worded()))
            .render_derived(name="x", with_types=True)
        )
    ),
    "construct behind an attribute": orm(lambda s: s.scalars(select(Note)).one().all_prompts),
    "construct as a criterion": orm(lambda s: s.execute(update(Test).where(Custom() == "x"))),
    "operator in a delete": lambda c: c.execute(
        delete(tests).where(tests.c.category.op("is null or true or 1 =", precedence=100)(1))
    ),
    "comment in a delete": lambda c: c.execute(
        delete(tests).where(tests.c.category.op("is null --", precedence=100)(1))
    ),
    "default before an insert": lambda c: c.execute(insert(hidden_default()).values(name="x")),
    "insert from a query": lambda c: c.execute(
        insert(sets).from_select(["name"], select(literal("x")))
    ),
    "command": lambda c: c.execute(command("update tests set category = 'x'")),
    "command that reads": lambda c: c.execute(command("select prompt from tests")),
    "command of the application's": lambda c: c.execute(CustomDDL()),
    "table of a query": lambda c: c.execute(table_as(select(tests.c.prompt))),
    "table of text": lambda c: c.execute(table_as(select(literal_column("prompt from tests --")))),
    "default": lambda c: c.scalar(schema.ColumnDefault(text(QUERY))),
}


@pytest.mark.parametrize("attack", TEXTS.values(), ids=TEXTS)
def test_text_beside_the_expressions_is_refused(
    world: World, engine: Engine, attack: Attack
) -> None:
    """Text that goes before, behind or in place of a statement is not executed."""
    check_refused(world.open, engine, attack, UnfilterableStatementError)


MENDED: dict[str, tuple[Any, str, str]] = {
    "operator": (phrases, "is_operator", "operator"),
    "literal": (phrases, "is_literal", "literal column"),
    "type": (phrases, "is_type", "type of its own words"),
    "name": (phrases, "is_name", "column that is not quoted"),
    "construct": (RefusingCompiler, "_check_custom", "construct, of a type"),
}


@pytest.mark.parametrize(("owner", "name", "attack"), MENDED.values(), ids=MENDED)
def test_without_the_check_the_text_is_executed(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, attack: str
) -> None:
    """Each check is what refuses: without it A reads B's rows."""
    monkeypatch.setattr(owner, name, lambda *_: True)
    with unwalled_engine(world) as engine, pytest.raises(pytest.fail.Exception):
        check_refused(
            world.open,
            engine,
            lambda c: c.execute(select(SELECTED[attack])),
            UnfilterableStatementError,
        )

"""Where filters are the only wall: what passes gives the rows that row security gives."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    Integer,
    MetaData,
    Numeric,
    String,
    cast,
    delete,
    extract,
    func,
    insert,
    inspect,
    literal,
    literal_column,
    or_,
    orm,
    select,
    true,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import aliased
from tests.fixtures.attacks import SECRET, attacked_world, shown, unwalled_engine
from tests.fixtures.worlds import A

from assay.models import Base, Test, TestSet, User
from tenantry import UnfilterableStatementError, filters, phrases, set_tenant
from tenantry.testing import Server

Act = Callable[[Connection], object]

tests: Any = Test.__table__
sets: Any = TestSet.__table__
users: Any = User.__table__

union_of: Any = orm.polymorphic_union


@pytest.fixture(scope="module")
def engines(tenantry_server: Server, tenantry_template: str) -> Iterator[list[Engine]]:
    """Return an engine whose wall is row security, and one whose wall are filters."""
    with attacked_world(tenantry_server, tenantry_template) as world, ExitStack() as stack:
        yield [
            stack.enter_context(world.engine()),
            stack.enter_context(unwalled_engine(world, "filters")),
        ]


def outcome(engine: Engine, act: Act) -> str:
    """Run this for A, roll back, and return what came of it."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        result: Any = act(connection)
        count = getattr(result, "rowcount", None)
        seen = repr((count, shown(result)))
        connection.rollback()
        return seen


def check_equal(engines: list[Engine], act: Act) -> str:
    """It does the same under both walls, and shows nothing of B's."""
    walled, filtered = (outcome(engine, act) for engine in engines)
    assert filtered == walled
    assert SECRET not in filtered
    return filtered


CONFINED: dict[str, Act] = {
    "equals, delete": lambda c: c.execute(
        delete(tests).where(
            tests.c.category.is_(None).op("=", precedence=100)(or_(tests.c.prompt == "x", true()))
        )
    ),
    "or, update": lambda c: c.execute(
        update(tests).where(or_(tests.c.prompt == "x", true())).values(category="x")
    ),
    "concatenated, update": lambda c: c.execute(
        update(tests)
        .where(tests.c.prompt.op("||", precedence=100)(tests.c.prompt == "x") != "y")
        .values(category="x")
    ),
    "update of an alias": lambda c: c.execute(update(tests.alias("t")).values(category="x")),
    "delete of an alias": lambda c: c.execute(delete(tests.alias("t"))),
    "update from": lambda c: c.execute(
        update(tests).where(User.id == tests.c.id).values(category=User.name)
    ),
    "delete using": lambda c: c.execute(
        delete(tests).where(tests.c.prompt == User.name, User.name == "secret of b")
    ),
}


@pytest.mark.parametrize("attack", CONFINED.values(), ids=CONFINED)
def test_condition_does_not_let_the_filter_out(engines: list[Engine], attack: Act) -> None:
    """Whatever precedence a condition claims, the tenant's is beside all of it."""
    check_equal(engines, attack)


def test_without_parentheses_a_condition_lets_the_filter_out(
    engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parentheses around the application's conditions are a second wall behind the check of text.

    With neither of both all rows are deleted, and the comparison finds it.
    """
    monkeypatch.setattr(phrases, "is_operator", lambda _: True)

    def attack(precedence: int) -> Act:
        # Each precedence is a statement of its own, which is compiled anew.
        loose = tests.c.category.op("is null or true or 1 =", precedence=precedence)(1)
        return lambda c: c.execute(delete(tests).where(loose))

    assert check_equal(engines, attack(100)) == "(1, [])"
    monkeypatch.setattr(filters, "Grouping", lambda criterion: criterion)
    with pytest.raises(AssertionError):
        check_equal(engines, attack(101))


ORDINARY: dict[str, Any] = {
    "||": tests.c.prompt + "x",
    "->>": cast(literal('{"a": "x"}'), postgresql.JSONB)["a"].astext,
    "@>": cast(literal('{"a": 1}'), postgresql.JSONB).contains({"a": 1}),
    "?": cast(literal('{"a": 1}'), postgresql.JSONB).has_key("a"),
    "&&": tests.c.expected.overlap(["x"]),
    "~*": tests.c.prompt.regexp_match("SECRET", flags="i"),
    "~": tests.c.prompt.op("~")("secret"),
    "ilike": tests.c.prompt.ilike("%SECRET%", escape="/"),
    "is distinct from": tests.c.category.is_distinct_from(tests.c.prompt),
    "at time zone": tests.c.created_at.op("at time zone")("UTC"),
    "similar to": tests.c.prompt.op("similar to")("secret%"),
    "#>>": cast(literal('{"a": {"b": 1}}'), postgresql.JSONB)[("a", "b")].astext,
    "collate": tests.c.prompt.collate("C"),
    "extract": extract("epoch", tests.c.created_at),
    "interval": cast(literal("1"), postgresql.INTERVAL(fields="DAY TO SECOND", precision=3)),
    "numeric": cast(literal("1"), Numeric(10, 2)),
    "varchar": cast(literal("1"), String(10, collation="C")),
    "timestamp": cast(literal("2000-01-01"), postgresql.TIMESTAMP(timezone=True, precision=3)),
    "array": cast(literal("{}"), ARRAY(Integer, dimensions=2)),
    "empty array": postgresql.array([], type_=Integer),
    "enum": cast(literal("1"), postgresql.VARCHAR(3)),
    "window": func.row_number().over(order_by=tests.c.id, rows=(None, 0)),
    "filter": func.count().filter(tests.c.prompt != "x"),
    "within group": func.percentile_cont(0.5).within_group(func.length(tests.c.prompt)),
    "aggregate": func.string_agg(
        tests.c.prompt, postgresql.aggregate_order_by(literal(","), tests.c.id)
    ),
    "catalog": func.pg_catalog.length(tests.c.prompt),
    "literal columns": literal_column("1") + literal_column("'x'").is_(None).cast(Integer),
    "search": func.to_tsvector("english", tests.c.prompt).bool_op("@@")(func.to_tsquery("secret")),
}


@pytest.mark.parametrize("expression", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_expression_is_not_refused(engines: list[Engine], expression: Any) -> None:
    """Operators, types and functions that are no more than that work as under row security."""
    statement = select(expression).select_from(tests)
    assert not check_equal(engines, lambda c: c.execute(statement)).endswith(", [])")


def schemas(connection: Connection) -> Connection:
    """Return the Connection, with tables without a schema in the one where they are."""
    return connection.execution_options(schema_translate_map={None: "public"})


STATEMENTS: dict[str, Act] = {
    "rows with a scalar sub-query, returned": lambda c: c.execute(
        insert(tests)
        .values(category=select(users.c.name).limit(1).scalar_subquery())
        .returning(tests.c.prompt, tests.c.category, tests.c.organization_id),
        [{"prompt": f"p{n}", "expected": ["x"], "metric": "exact"} for n in range(30)],
    ),
    "schema, translated": lambda c: schemas(c).execute(select(tests.c.prompt)),
    "schema, translated, update": lambda c: schemas(c).execute(update(tests).values(category="x")),
    "schema, translated, insert": lambda c: schemas(c).execute(
        insert(sets).values(name="new").returning(sets.c.name)
    ),
    "update of an alias": lambda c: c.execute(
        update(t := tests.alias("t")).values(category="x").returning(t.c.prompt)
    ),
    "delete of an alias": lambda c: c.execute(delete(t := tests.alias("t")).returning(t.c.prompt)),
    "delete of an alias, by itself": lambda c: c.execute(
        delete(t := tests.alias("t")).where(t.c.id.in_(select(tests.c.id)))
    ),
    "update of an aliased class": lambda c: c.execute(
        update(aliased(Test)).values(category="x").execution_options(synchronize_session=False)
    ),
    "polymorphic union": lambda c: c.execute(
        select(union_of({"test": tests, "user": users}, "kind").c.kind)
    ),
    "polymorphic union of literals": lambda c: c.execute(
        select(
            union_of(
                {"t": select(tests.c.prompt).subquery(), "u": select(users.c.email).subquery()},
                "kind",
                cast_nulls=False,
            )
        )
    ),
    "upsert that does nothing": lambda c: c.execute(
        postgresql.insert(sets).values(name="a1").on_conflict_do_nothing()
    ),
    "for update": lambda c: c.execute(select(tests.c.prompt).with_for_update(of=tests)),
    "streamed": lambda c: c.execution_options(stream_results=True).execute(select(tests.c.prompt)),
    "isolation level": lambda c: c.get_isolation_level(),
}


@pytest.mark.parametrize("act", STATEMENTS.values(), ids=STATEMENTS)
def test_unusual_statement_gives_the_same(engines: list[Engine], act: Act) -> None:
    """What the compiler treats in a way of its own gives what row security gives."""
    check_equal(engines, act)


def test_schema_can_be_inspected(engines: list[Engine]) -> None:
    """What SQLAlchemy asks the catalog about tables holds no rows of them, and is answered."""

    def look(connection: Connection) -> object:
        Base.metadata.create_all(connection)
        inspector = inspect(connection)
        reflected = MetaData()
        reflected.reflect(connection)
        return (
            sorted(inspector.get_table_names()) == sorted(reflected.tables),
            len(inspector.get_columns("tests")),
            len(inspector.get_foreign_keys("tests")),
            len(inspector.get_indexes("tests")),
            inspector.has_table("tests"),
        )

    assert "True" in check_equal(engines, look)


def test_upsert_that_overwrites_is_refused(engines: list[Engine]) -> None:
    """An INSERT that updates the row it conflicts with could meet another tenant's."""
    statement = postgresql.insert(sets).values(name="a1")
    statement = statement.on_conflict_do_update(index_elements=["id"], set_={"name": "x"})
    with pytest.raises(UnfilterableStatementError):
        outcome(engines[1], lambda c: c.execute(statement))

"""The same program gives the same rows under row security, under filters, and under both.

Three engines run it: one whose wall is the database, one on a copy where that wall is torn down
and filters are all there is, one with both. Rows of other tenants have the same ids and names as
A's and refer to other rows, so that a join that is filtered in part shows.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, delete, exists, false, func, insert, select, true, update
from sqlalchemy.orm import (
    Session,
    aliased,
    contains_eager,
    joinedload,
    lazyload,
    selectinload,
    subqueryload,
    with_loader_criteria,
)
from sqlalchemy.sql.compiler import SQLCompiler
from tests.fixtures.programs import ROWS, Operation, fill, id_of, observe, rows_of
from tests.fixtures.worlds import A, B, Wall, World, tear_down_wall

from assay.models import (
    Endpoint,
    Organization,
    Test,
    TestConfiguration,
    TestResult,
    TestRun,
    TestSet,
    TestSetTest,
    User,
)
from tenantry.filters import FilteringCompiler
from tenantry.testing import Server

WALLS = (Wall("database", "session"), Wall("filters", "session"), Wall("both", "transaction"))

# What is joined with what: by name, which all tenants share, so that nothing but the wall keeps
# their rows apart.
NAMED: dict[str, Any] = {
    "set": (TestSet, TestSet.name, TestSet.description),
    "test": (Test, Test.category, Test.prompt),
    "endpoint": (Endpoint, Endpoint.name, Endpoint.url),
    "configuration": (TestConfiguration, TestConfiguration.name, TestConfiguration.test_set_id),
    "user": (User, User.email, User.name),
}

numbers = st.integers(0, ROWS + 1)


@pytest.fixture(scope="module")
def engines(tenantry_server: Server, tenantry_template: str) -> Iterator[list[Engine]]:
    """Return the three engines, over databases with the same rows of three tenants."""
    with ExitStack() as stack:
        databases = [tenantry_server.create_database(template=tenantry_template) for _ in "12"]
        for database in databases:
            stack.callback(database.drop)
            fill(database, "abc")
        tear_down_wall(databases[1])
        world = World(*databases)
        yield [stack.enter_context(world.engine(wall)) for wall in WALLS]


@st.composite
def sources(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Draw something to select from, its column to join by and one more column."""
    entity, key, value = NAMED[draw(st.sampled_from(sorted(NAMED)))]
    form = draw(st.integers(0, 5))
    if form == 0:
        alias: Any = aliased(entity)
        return alias, getattr(alias, key.key), getattr(alias, value.key)
    inner = select(key.label("key"), value.label("value"))
    if form == 1:
        shape: Any = inner.where(key != "n0").subquery()
    elif form == 2:
        shape = inner.cte()
    elif form == 3:
        shape = inner.union_all(inner.where(key == "n1")).subquery()
    elif form == 4:
        shape = select(key.label("key"), func.count().label("value")).group_by(key).subquery()
    else:
        alias = aliased(entity, inner.add_columns(*entity.__mapper__.c).subquery())
        return alias, getattr(alias, key.key), getattr(alias, value.key)
    return shape, shape.c.key, shape.c.value


@st.composite
def joins(draw: st.DrawFn) -> Operation:
    """Draw a SELECT of two or three sources, joined in one of the ways that there are."""
    source, key, value = draw(sources())
    columns, origin = [key, value], source
    for _ in range(draw(st.integers(1, 2))):
        other, other_key, other_value = draw(sources())
        kind = draw(st.sampled_from(["inner", "left", "full", "cross", "lateral"]))
        columns += [other_key, other_value]
        if kind == "lateral":
            # A derived table that sees the row it is joined to.
            lateral = select(other_key.label("k"), other_value.label("v")).where(other_key == key)
            shape = lateral.lateral()
            columns[-2:] = [shape.c.k, shape.c.v]
            origin = _join(origin, shape, true(), draw(st.sampled_from(["inner", "left"])))
        else:
            condition = true() if kind == "cross" else key == other_key
            origin = _join(origin, other, condition, kind)
    statement = select(*columns).select_from(origin)
    if draw(st.booleans()):
        name = f"n{draw(numbers)}"
        statement = statement.where(draw(st.sampled_from([key == name, key != name])))
    return lambda session: rows_of(session.execute(statement))


def _join(left: Any, right: Any, condition: Any, kind: str) -> Any:
    joined = (
        select(1)
        .select_from(left)
        .join(right, condition, isouter=kind == "left", full=kind == "full")
    )
    (origin,) = joined.get_final_froms()
    return origin


@st.composite
def nested(draw: st.DrawFn) -> Operation:
    """Draw a SELECT with a condition on, or a value from, another table; or a set operation."""
    entity, key, value = NAMED[draw(st.sampled_from(sorted(NAMED)))]
    other, other_key, _ = NAMED[draw(st.sampled_from(sorted(NAMED)))]
    other = aliased(other)
    other_key = getattr(other, other_key.key)
    inner = select(other_key).where(other_key == key).correlate(entity)
    names = select(other_key)
    statement: Any = [
        select(key, value).where(inner.exists()),
        select(key, value).where(~inner.exists()),
        select(key, value).where(key.in_(names)),
        select(key, value).where(key.not_in(names.where(other_key.is_not(None)))),
        select(key, select(func.count()).select_from(other).scalar_subquery()),
        select(key, inner.limit(1).scalar_subquery()),
        select(key).union(names),
        select(key).union_all(names),
        select(key).intersect(names),
        select(key).except_(names),
        select(func.count(), func.min(key)).group_by(value),
        select(key, func.row_number().over(partition_by=value, order_by=key)),
        select(key).distinct(),
        select(exists().where(key == f"n{ROWS}")),
        select(key).where(false()).union_all(names),
    ][draw(st.integers(0, 14))]
    return lambda session: rows_of(session.execute(statement))


@st.composite
def loads(draw: st.DrawFn) -> Operation:
    """Draw objects and what they are related to, loaded in one of the ORM's ways."""
    how = draw(st.sampled_from([joinedload, selectinload, subqueryload, lazyload]))
    kind = draw(st.integers(0, 5))
    number, tenant = draw(numbers), draw(st.sampled_from([A, B]))

    def run(session: Session) -> object:
        if kind == 0:
            sets = session.scalars(select(TestSet).options(how(TestSet.tests))).unique()
            return sorted((row.name, [test.prompt for test in row.tests]) for row in sets)
        if kind == 1:
            runs = session.scalars(
                select(TestRun).options(
                    how(TestRun.results),
                    how(TestRun.test_configuration).options(how(TestConfiguration.test_set)),
                )
            ).unique()
            return sorted(
                (
                    str(row.id),
                    sorted(str(result.received) for result in row.results),
                    row.test_configuration and row.test_configuration.test_set.description,
                )
                for row in runs
            )
        if kind == 2:
            configurations = (
                select(TestConfiguration)
                .join(TestConfiguration.endpoint)
                .options(contains_eager(TestConfiguration.endpoint))
            )
            return sorted((row.name, row.endpoint.name) for row in session.scalars(configurations))
        if kind == 3:
            found = session.get(TestSet, (tenant, id_of("set", number)))
            return found and [found.description, sorted(test.prompt for test in found.tests)]
        if kind == 4:
            one = session.scalars(select(TestSet).filter_by(name=f"n{number}")).one_or_none()
            if one is None:
                return None
            session.expire(one)
            session.refresh(one)
            return one.description
        statement = select(TestSet).options(
            with_loader_criteria(TestSet, TestSet.name != f"n{number}")
        )
        return sorted(row.description for row in session.scalars(statement))

    return run


@st.composite
def writes(draw: st.DrawFn) -> Operation:
    """Draw an UPDATE, DELETE or INSERT of the ORM, some with RETURNING or another table."""
    number, other, kind = draw(numbers), draw(numbers), draw(st.integers(0, 11))
    fetch = {"synchronize_session": draw(st.sampled_from(["fetch", "evaluate", False]))}
    sets = select(TestSet.name)
    statement: Any = [
        update(TestSet).where(TestSet.name != f"n{number}").values(description="x"),
        update(TestSet).values(description=TestSet.name + "!").returning(TestSet.description),
        update(Test).where(Test.category == TestSet.name).values(prompt=TestSet.description),
        update(Test).where(Test.category.in_(sets)).values(reference="x").returning(Test.prompt),
        update(TestSet).values(
            description=select(func.count().cast(TestSet.name.type))
            .select_from(Test)
            .scalar_subquery()
        ),
        delete(TestResult).where(TestResult.received.contains(f"{number}")),
        delete(TestSetTest).where(TestSetTest.test_id == Test.id, Test.category == f"n{number}"),
        delete(TestSet).where(TestSet.name == f"n{number}").returning(TestSet.description),
        delete(Endpoint).where(~select(User.id).exists()),
        insert(TestSet).values(id=id_of("set", number), name=f"n{other}"),
        insert(User).values(email=f"n{number}@example.org", name="x").returning(User.email),
        update(Organization).values(name="mine").returning(Organization.name),
    ][kind]
    if kind in {2, 3, 4, 6, 8}:
        fetch = {"synchronize_session": False}

    def run(session: Session) -> object:
        result: Any = session.execute(statement, execution_options=fetch if kind < 9 else {})
        return rows_of(result) if statement._returning else result.rowcount

    return run


@st.composite
def units_of_work(draw: st.DrawFn) -> Operation:
    """Draw objects that are added, changed and deleted, and what a flush makes of them."""
    number, kind = draw(numbers), draw(st.integers(0, 4))

    def run(session: Session) -> object:
        if kind == 0:
            session.add_all([TestSet(name=f"new {n}") for n in range(number)])
        elif kind == 1:
            for row in session.scalars(select(TestSet).where(TestSet.name <= f"n{number}")):
                row.description = f"{row.name}?"
        elif kind == 2:
            for user in session.scalars(select(User).where(User.name.contains(f"{number}"))):
                session.delete(user)
        elif kind == 3:
            session.execute(insert(TestSet), [{"name": f"bulk {n}"} for n in range(number)])
        else:
            session.merge(TestSet(organization_id=A, id=id_of("set", number), name=f"m{number}"))
        session.flush()
        return rows_of(session.execute(select(TestSet.name, TestSet.description)))

    return run


@st.composite
def planted(draw: st.DrawFn) -> Operation:
    """Draw a row for another tenant; each wall refuses it, in words of its own."""
    bulk = draw(st.booleans())

    def run(session: Session) -> object:
        if bulk:
            session.execute(insert(TestSet), [{"organization_id": B, "name": "planted"}])
        else:
            session.execute(update(TestSet).values(organization_id=B))
        return "written"

    return run


programs = st.lists(
    st.one_of(joins(), nested(), loads(), writes(), units_of_work(), planted()),
    min_size=1,
    max_size=6,
)


def outcomes(engine: Engine, program: list[Operation]) -> list[object]:
    """Return what the program observed; of an error, that it was refused."""
    return ["refused" if isinstance(seen, tuple) else seen for seen in observe(engine, program)]


def test_every_wall_gives_the_same_rows(engines: list[Engine]) -> None:
    """Rows and counts are the same whichever wall there is."""

    @settings(max_examples=120, deadline=None, derandomize=True, database=None)
    @given(program=programs)
    def same(program: list[Operation]) -> None:
        expected, *others = [outcomes(engine, program) for engine in engines]
        assert all(other == expected for other in others), (expected, others)

    same()


def test_comparison_finds_a_missing_filter(
    engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the filter on reads the comparison fails, so it can."""
    monkeypatch.setattr(FilteringCompiler, "visit_table", SQLCompiler.visit_table)
    statement = select(TestSet.name, TestSet.description).where(TestSet.description != "missing")
    program: list[Operation] = [lambda session: rows_of(session.execute(statement))]
    walled, filtered, both = (outcomes(engine, program) for engine in engines)
    assert walled == both
    assert walled != filtered


def test_programs_observe_something(engines: list[Engine]) -> None:
    """Most operations succeed: programs that are refused throughout would be equal for nothing."""
    counts = {"refused": 0, "done": 0}

    @settings(max_examples=30, deadline=None, derandomize=True, database=None)
    @given(program=programs)
    def run(program: list[Operation]) -> None:
        for outcome in outcomes(engines[0], program):
            counts["refused" if outcome == "refused" else "done"] += 1

    run()
    assert counts["done"] > counts["refused"] > 0

"""What A observes does not depend on B's rows: not on one of them, nor on whether there are any.

The same program runs in two databases that differ in B's rows alone. B's rows have the same ids,
names and unique values as A's, and some that A lacks, so that a key, a check or a count that
reaches beyond the tenant shows.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Table, delete, exists, func, insert, select, text, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session
from sqlalchemy.sql.compiler import SQLCompiler
from tests.fixtures.programs import ROWS, Operation, fill, id_of, observe, rows_of
from tests.fixtures.worlds import WALLS, A, B, C, Wall, World, cursor_of, tear_down_wall

from assay.models import (
    Base,
    Organization,
    Test,
    TestConfiguration,
    TestResult,
    TestSet,
    TestSetTest,
    User,
)
from tenantry import DEFAULT_CONFIG
from tenantry.filters import FilteringCompiler
from tenantry.models import tenant_table
from tenantry.testing import Server

TABLES = [table for table in Base.metadata.sorted_tables if tenant_table(table) is not None]

FILTERS = Wall("filters", "session")

numbers = st.integers(0, ROWS + 1)
tenants = st.sampled_from([A, B, C])


@pytest.fixture(scope="module")
def alone(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return databases that hold A's rows and nothing else."""
    yield from databases(tenantry_server, tenantry_template, "a")


@pytest.fixture(scope="module")
def together(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return databases that hold B's rows, too."""
    yield from databases(tenantry_server, tenantry_template, "ab")


def databases(server: Server, template: str, letters: str) -> Iterator[World]:
    """Yield a walled and a bare database with these tenants' rows."""
    walled, bare = (server.create_database(template=template) for _ in range(2))
    for database in (walled, bare):
        fill(database, letters)
    tear_down_wall(bare)
    yield World(walled, bare)
    walled.drop()
    bare.drop()


def columns_of(table: Table) -> list[Any]:
    """Return the columns whose values are the same in both databases."""
    return [c for c in table.c if c.name not in {"created_at", "updated_at"}]


@st.composite
def reads(draw: st.DrawFn) -> Operation:
    """Draw a read of a table: its rows, their number, or whether one of them exists."""
    table = draw(st.sampled_from(TABLES))
    number, tenant, kind = draw(numbers), draw(tenants), draw(st.integers(0, 5))
    column = table.c.get("organization_id", table.c.id if "id" in table.c else None)
    statement = [
        select(*columns_of(table)),
        select(func.count()).select_from(table),
        select(*columns_of(table)).where(column == tenant),
        select(exists().where(column == tenant)),
        select(*columns_of(table)).with_for_update(),
        select(*columns_of(table)).order_by(*table.primary_key).offset(number).limit(1),
    ][kind]
    return lambda session: rows_of(session.execute(statement))


@st.composite
def inserts(draw: st.DrawFn) -> Operation:
    """Draw an INSERT, often of a key or a reference that some tenant has."""
    number, other, tenant = draw(numbers), draw(numbers), draw(st.sampled_from([None, A, B, C]))
    owner = {} if tenant is None else {"organization_id": tenant}
    options: list[tuple[type[Base], dict[str, object]]] = [
        (TestSet, {"id": id_of("set", number), "name": f"n{other}"}),
        (User, {"id": id_of("user", number), "email": f"n{other}@example.org", "name": "x"}),
        (
            TestConfiguration,
            {
                "id": id_of("configuration", number + 10),
                "name": f"n{other + 10}",
                "test_set_id": id_of("set", number),
                "endpoint_id": id_of("endpoint", other),
            },
        ),
        (
            TestSetTest,
            {
                "test_set_id": id_of("set", number),
                "test_id": id_of("test", other),
                "position": number,
            },
        ),
        (
            TestResult,
            {
                "id": id_of("result", number),
                "test_run_id": id_of("run", number),
                "test_id": id_of("test", other),
                "verdict": "fail",
            },
        ),
    ]
    model, values = draw(st.sampled_from(options))
    ignore, organization = draw(st.booleans()), draw(st.integers(0, 9))
    if organization == 0:
        # The root table's own key must not tell whether a customer exists.
        return lambda session: rows_of(
            session.execute(
                insert(Organization).returning(Organization.name), [{"id": B, "name": "b"}]
            )
        )
    statement = postgresql.insert(model).values(**values, **owner)
    if ignore:
        statement = statement.on_conflict_do_nothing()
    return lambda session: session.execute(statement).rowcount  # type: ignore[attr-defined]


@st.composite
def changes(draw: st.DrawFn) -> Operation:
    """Draw an UPDATE or a DELETE, of one row or of all, or one that moves a row to a tenant."""
    number, other, tenant, kind = (
        draw(numbers),
        draw(numbers),
        draw(tenants),
        draw(st.integers(0, 6)),
    )
    options = {"synchronize_session": False}
    statement: Any = [
        update(TestSet).where(TestSet.id == id_of("set", number)).values(name=f"n{other}"),
        update(TestSet).values(description="changed"),
        update(TestSet).where(TestSet.id == id_of("set", number)).values(organization_id=tenant),
        update(TestConfiguration)
        .where(TestConfiguration.id == id_of("configuration", number))
        .values(test_set_id=id_of("set", other)),
        delete(Test).where(Test.id == id_of("test", number)),
        delete(TestSet).where(TestSet.organization_id == tenant),
        delete(Organization).where(Organization.id == tenant) if tenant != A else delete(User),
    ][kind]
    return lambda session: (
        session.execute(  # type: ignore[attr-defined]
            statement, execution_options=options
        ).rowcount
    )


@st.composite
def texts(draw: st.DrawFn) -> Operation:
    """Draw SQL text that asks in ways in which the ORM does not."""
    statement = draw(
        st.sampled_from(
            [
                "select id, name, description from test_sets",
                "table test_set_tests",
                "select count(*) from test_sets s full join tests t on t.category = s.name",
                "insert into test_sets (organization_id, name) values (:b, 'planted')",
                "insert into test_sets (id, name) select id, name || '!' from test_sets",
                "insert into test_sets (id, name) values (:b, 'n3')"
                " on conflict (organization_id, name)"
                " do update set description = 'mine' returning name",
                "update test_sets set organization_id = :b returning name",
                "delete from organizations where id = :b returning name",
                "with gone as (delete from tests returning prompt) select count(*) from gone",
                "merge into test_sets s using tests t on t.category = s.name"
                " when matched then update set description = t.prompt",
                "select 1 / (select count(*) from test_sets where name = 'n3')",
                "select name::int from users where email like 'n3@%'",
                "truncate test_sets",
                "lock table test_sets in access exclusive mode",
                "copy test_sets to stdout",
            ]
        )
    )

    def run(session: Session) -> object:
        result: Any = session.execute(text(statement), {"b": B})
        return rows_of(result) if result.returns_rows else result.rowcount

    return run


programs = st.lists(st.one_of(reads(), inserts(), changes(), texts()), min_size=1, max_size=8)


@pytest.mark.parametrize("wall", [*WALLS[:2], FILTERS], ids=str)
def test_another_tenants_rows_make_no_difference(alone: World, together: World, wall: Wall) -> None:
    """Rows, counts, error codes, constraint names and messages are the same in both databases."""
    with alone.engine(wall) as first, together.engine(wall) as second:

        @settings(max_examples=70, deadline=None, derandomize=True, database=None)
        @given(program=programs)
        def same(program: list[Operation]) -> None:
            assert observe(first, program) == observe(second, program)

        same()


def test_comparison_finds_a_missing_filter(
    alone: World, together: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither the database nor a filter confines a SELECT, A's observations differ."""
    monkeypatch.setattr(FilteringCompiler, "visit_table", SQLCompiler.visit_table)
    program: list[Operation] = [lambda session: rows_of(session.execute(select(TestSet.name)))]
    with alone.engine(FILTERS) as first, together.engine(FILTERS) as second:
        assert observe(first, program) != observe(second, program)


def test_comparison_finds_a_key_without_the_tenant(
    tenantry_server: Server, tenantry_template: str
) -> None:
    """Where a unique key reaches across tenants, A learns of B's row from an error."""
    program: list[Operation] = [
        lambda session: session.execute(insert(TestSet).values(name=f"n{ROWS}")).rowcount  # type: ignore[attr-defined]
    ]
    observed = []
    for letters in ("a", "ab"):
        database = tenantry_server.create_database(template=tenantry_template)
        fill(database, letters)
        with cursor_of(database.owner_url, DEFAULT_CONFIG.owner_role) as cursor:
            cursor.execute(f"create unique index shared on test_sets (name) where name = 'n{ROWS}'")
        with World(database, database).engine() as engine:
            observed.append(observe(engine, program))
        database.drop()
    assert observed[0] == [1]
    assert observed[1] != observed[0]

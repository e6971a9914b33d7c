"""Searches find the bound tenant's rows by an index, and never another tenant's."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.orm import Session, selectinload, sessionmaker
from tests.conftest import RequireService
from tests.fixtures.catalogs import (
    ASKED,
    INDEXES,
    SEARCHES,
    A,
    B,
    Base,
    Good,
    Offer,
    State,
    by_label,
    by_payload,
    by_price,
    by_state,
    create_catalog,
    operations,
)

from tenantry import (
    MissingTenantError,
    TenantSearch,
    UnsearchableError,
    create_tenant_engine,
    set_tenant,
    tenant_scope,
)
from tenantry.config import Mode
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected


@pytest.fixture(scope="module")
def catalog(
    tenantry_server: Server, tenantry_template: str, require_service: RequireService
) -> Iterator[Database]:
    """Return a database with the same goods for two tenants, which the module's tests only read."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    database = tenantry_server.create_database(template=tenantry_template)
    create_catalog(database)
    yield database
    database.drop()


def engine_on(database: Database, mode: Mode = "database") -> Engine:
    """Return the application's engine, with one connection that everybody shares."""
    return create_tenant_engine(
        database.app_url, mode=mode, metadata=Base.metadata, pool_size=1, max_overflow=0
    )


@pytest.fixture(scope="module")
def engine(catalog: Database) -> Iterator[Engine]:
    """Return the application's engine on the catalog, behind the database's wall."""
    engine = engine_on(catalog)
    yield engine
    engine.dispose()


def labels(engine: Engine, tenant: uuid.UUID | None, query: Any) -> set[str]:
    """Return the labels of the goods that a query finds for a tenant."""
    with Session(engine) as session:
        if tenant is not None:
            set_tenant(session, tenant)
        return {good.label for good in session.scalars(query)}


def expected(letter: str, numbers: set[int]) -> set[str]:
    """Return the labels of a tenant's goods with these numbers."""
    return {f"Good {number} of {letter}" for number in numbers}


@pytest.mark.parametrize(
    ("search", "values", "numbers"), ASKED, ids=[each.search.match for each, _, _ in ASKED]
)
@pytest.mark.parametrize("mode", ["database", "both"])
def test_search_finds_the_tenants_rows_alone(
    catalog: Database,
    mode: Mode,
    search: TenantSearch[Good],
    values: tuple[Any, ...],
    numbers: set[int],
) -> None:
    """Both tenants have the same rows; each search gives each tenant its own, in turn."""
    engine = engine_on(catalog, mode)
    for tenant, letter in ((A, "a"), (B, "b"), (A, "a")):
        assert labels(engine, tenant, select(search(*values))) == expected(letter, numbers)
    engine.dispose()


def test_filters_give_the_same_rows_where_the_wall_is_missing(
    tenantry_server: Server, tenantry_template: str
) -> None:
    """With explicit filters as the only wall, each search finds what it found behind the wall."""
    database = tenantry_server.create_database(template=tenantry_template)
    create_catalog(database)
    with connected(database.superuser_url) as cursor:
        for table in ("goods", "offers"):
            cursor.execute(
                f"alter table {table} disable row level security, no force row level security"
            )
    engine = engine_on(database, "filters")
    for search, values, numbers in ASKED:
        for tenant, letter in ((A, "a"), (B, "b")):
            assert labels(engine, tenant, select(search(*values))) == expected(letter, numbers)
        with pytest.raises(MissingTenantError):
            labels(engine, None, select(search(*values)))
    # A statement that is compiled already takes the values of the next call.
    for number in range(1, 13):
        for tenant, letter in ((A, "a"), (B, "b")):
            both = by_price(number, number)
            assert labels(engine, tenant, select(both)) == expected(letter, {number})
            assert labels(engine, tenant, select(both).where(both.price > number)) == set()
    assert labels(engine, A, select(by_label("%"))) == set()
    engine.dispose()
    database.drop()


def test_search_composes_with_the_orm(engine: Engine) -> None:
    """What a search returns is filtered, joined, ordered, limited and loaded like its entity."""
    with tenant_scope(A, sessions=sessionmaker(engine)) as session:
        found = by_label("good 1")
        query = (
            select(found)
            .where(found.price > 1, found.state == State.fresh)
            .order_by(found.price.desc())
            .limit(2)
            .options(selectinload(found.offers))
        )
        assert [good.price for good in session.scalars(query)] == [11, 10]
        good = session.scalars(select(Good).where(Good.price == 10)).one()
        session.add(Offer(good_id=good.id, buyer="somebody"))
        session.flush()
        joined = select(Offer.buyer, found.label).join(found, Offer.good_id == found.id)
        assert session.execute(joined).all() == [("somebody", "Good 10 of a")]
        # One identity, whichever way it was loaded.
        assert session.scalars(select(found).where(found.id == good.id)).one() is good
        cheap, dear = by_price(0, 1), by_price(12, 99)
        both = select(cheap.label, dear.label).join(dear, cheap.organization_id != dear.id)
        assert session.execute(both).all() == [("Good 1 of a", "Good 12 of a")]
        session.rollback()


def test_without_a_tenant_nothing_is_found(engine: Engine, catalog: Database) -> None:
    """The ORM says that the tenant is missing; the function itself finds no row."""
    for search, values, _ in ASKED:
        with pytest.raises(MissingTenantError):
            labels(engine, None, select(search(*values)))
    plain = create_engine(catalog.app_url)
    with plain.connect() as connection:
        for value in ("", "good", "%"):
            found = connection.execute(text("select * from goods_by_label(:v)"), {"v": value})
            assert found.all() == []
    plain.dispose()


@pytest.mark.parametrize(
    "value",
    ["%", "_ood 1 of", "good\\", "\\", "' or true --", "=", "", "$1", "'); drop table goods; --"],
)
def test_hostile_text_is_text(engine: Engine, value: str) -> None:
    """Wildcards, escapes, quotes and SQL in a value are looked for as they stand."""
    plain = [f"Good {n} of a" for n in range(1, 13)]
    assert labels(engine, A, select(by_label(value))) == {
        label for label in plain if value.lower() in label.lower()
    }


def test_null_and_overlong_values_find_nothing(engine: Engine, catalog: Database) -> None:
    """NULL equals nothing; beyond 8 kB the layer refuses and the function finds nothing."""
    assert labels(engine, A, select(by_label(None))) == set()
    for search, value in ((by_label, "x" * 8193), (by_payload, {"n": "x" * 8193})):
        with pytest.raises(UnsearchableError, match="8192"):
            search(value)
    with pytest.raises(UnsearchableError, match="takes 2 values"):
        by_price(1)
    with Session(engine) as session:
        set_tenant(session, A)
        deep = '{"a":' * 2000 + "1" + "}" * 2000
        for value in ("", "x" * 8193):
            rows = session.execute(text("select * from goods_by_mail(:v)"), {"v": value})
            assert rows.all() == []
        rows = session.execute(
            text("select * from goods_by_payload(cast(:v as jsonb))"), {"v": deep}
        )
        assert rows.all() == []


def test_a_pattern_would_have_been_an_oracle(catalog: Database) -> None:
    """Why a value is no pattern: a trailing backslash fails in the row that matches up to it."""
    engine = create_engine(catalog.superuser_url)
    with engine.connect() as connection:
        query = text("select count(*) from goods where label like :pattern")
        assert connection.scalar(query, {"pattern": "Good 13\\"}) == 0
        with pytest.raises(DBAPIError, match="must not end with escape character"):
            connection.scalar(query, {"pattern": "Good 12\\"})
    engine.dispose()


@pytest.mark.parametrize("search", SEARCHES, ids=[each.search.name for each in SEARCHES])
def test_search_reads_its_index(catalog: Database, search: TenantSearch[Good]) -> None:
    """As the searcher, tenant and search are one index condition, and the rest is not read."""
    index = search.search.name.removeprefix("goods_")
    with connected(catalog.superuser_url) as cursor:
        cursor.execute("begin")
        # So few rows fit into a page that any index would do.
        cursor.execute("alter table goods drop constraint goods_pkey cascade")
        others = [statement.split()[2] for statement in INDEXES if f" {index} " not in statement]
        cursor.execute(f"drop index {', '.join(others)}")
        cursor.execute(f"set local role {search.search.role}")
        cursor.execute("set local enable_seqscan = off")
        cursor.execute("explain (costs off) select found from goods as found")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        cursor.execute("rollback")
    (condition,) = [line for line in plan.splitlines() if "Index Cond" in line]
    assert "organization_id = " in condition, plan
    assert " AND " in condition, plan
    assert "Filter" not in plan


def test_plain_predicate_cannot_read_the_index(catalog: Database) -> None:
    """Under row security the same condition in a query is a filter on all of the tenant's rows."""
    with connected(catalog.app_url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [str(A)])
        cursor.execute("set enable_seqscan = off")
        cursor.execute("explain (costs off) select * from goods where cost between 3 and 5")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Filter: ((cost >= " in plan


@pytest.mark.parametrize("search", SEARCHES, ids=[each.search.name for each in SEARCHES])
def test_searcher_sees_no_more_than_its_caller(
    catalog: Database, search: TenantSearch[Good]
) -> None:
    """Whoever got hold of the searcher's rights would stand behind the same wall, and read only."""
    with connected(catalog.superuser_url) as cursor:
        cursor.execute(
            "select rolcanlogin or rolsuper or rolbypassrls or rolcreaterole or rolcreatedb "
            "or rolreplication from pg_roles where rolname = %s",
            [search.search.role],
        )
        assert cursor.fetchall() == [(False,)]
        cursor.execute(
            "select table_name, privilege_type from information_schema.role_table_grants "
            "where grantee = %s",
            [search.search.role],
        )
        assert cursor.fetchall() == [("goods", "SELECT")]
        cursor.execute(f"set role {search.search.role}")
        cursor.execute("select count(*) from goods")
        assert cursor.fetchall() == [(0,)]


def test_application_cannot_become_or_change_a_searcher(engine: Engine) -> None:
    """It can neither act as the role nor replace, alter or take over the function."""
    for statement in (
        "set role goods_by_label_searcher",
        "set session authorization goods_by_label_searcher",
        "grant goods_by_label_searcher to tenantry_app",
        "alter function goods_by_label(text) security invoker",
        "alter function goods_by_label(text) reset search_path",
        "alter policy goods_tenant_wall on goods using (true)",
        "drop function goods_by_label(text)",
        "create or replace function goods_by_label(wanted text) returns setof goods language sql "
        "return null",
    ):
        with Session(engine) as session, pytest.raises(ProgrammingError):
            session.execute(text(statement))


def test_planted_names_are_not_looked_up(
    fresh_database: Database, tenantry_server: Server, require_service: RequireService
) -> None:
    """A caller's search_path, with a table, an operator and functions planted, changes nothing."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    create_catalog(fresh_database)
    with connected(fresh_database.superuser_url) as cursor:
        cursor.execute("grant temporary on database " + fresh_database.name + " to public")
        cursor.execute("create schema planted")
        cursor.execute("grant usage, create on schema planted to tenantry_app")
    with connected(fresh_database.app_url) as cursor:
        for schema in ("pg_temp", "planted"):
            cursor.execute(
                f"create {'temp ' if schema == 'pg_temp' else ''}table "
                f"{'' if schema == 'pg_temp' else 'planted.'}goods "
                "as select * from public.goods"
            )
            for function in (
                "substr(text, integer) returns text language sql return 'Good'",
                "lower(text) returns text language sql return 'x'",
                f"current_setting(text, boolean) returns text language sql return '{B}'",
                "same(text, text) returns boolean language plpgsql as "
                "'begin raise exception ''called''; end'",
            ):
                cursor.execute(f"create function {schema}.{function}")
            for operator in ("=", "~~*"):
                cursor.execute(
                    f"create operator {schema}.{operator} "
                    f"(leftarg = text, rightarg = text, function = {schema}.same)"
                )
        cursor.execute("set search_path = pg_temp, planted, public, pg_catalog")
        cursor.execute(
            "select pg_catalog.set_config('app.current_organization', %s, false)", [str(A)]
        )
        cursor.execute("select label from public.goods_by_mail('BUYER7@example.org')")
        assert cursor.fetchall() == [("Good 7 of a",)]
        cursor.execute("select label from public.goods_by_label('good 7')")
        assert cursor.fetchall() == [("Good 7 of a",)]


def test_callers_settings_are_not_the_searchs(engine: Engine) -> None:
    """What a caller left in a search's setting is not searched for, and is back afterwards."""
    function = by_label.search.function("public")
    setting = function.split("set_config('")[1].split("'")[0]
    with Session(engine) as session:
        set_tenant(session, A)
        session.execute(text(f"select set_config('{setting}', '=nothing', false)"))
        session.commit()
        assert len(session.scalars(select(by_label("good 1"))).all()) == 4
        # In a select list a function's rows come one by one, between which the caller is himself.
        rows = session.execute(text("select (goods_by_label('good 1')).label"))
        assert {label for (label,) in rows} == expected("a", {1, 10, 11, 12})
        session.commit()
        assert session.scalar(text(f"select current_setting('{setting}')")) == "=nothing"


def test_failed_search_leaves_nothing_behind(engine: Engine) -> None:
    """After an error in a search, the next tenant on the connection finds its own rows."""
    with Session(engine) as session:
        set_tenant(session, A)
        with pytest.raises(DBAPIError):
            session.execute(text("select * from goods_by_state('none')"))
    assert labels(engine, B, select(by_state(State.gone))) == expected("b", {3, 6, 9, 12})


def test_search_outlives_changes_of_its_table(
    fresh_database: Database, tenantry_server: Server, require_service: RequireService
) -> None:
    """A column added or dropped later needs no new function; the searched one cannot go."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    create_catalog(fresh_database)
    with operations(fresh_database.owner_url) as op:
        op.assume_owner()
        op.execute("alter table goods add column later text default 'x', drop column tags cascade")
    engine = create_engine(fresh_database.app_url)
    with engine.begin() as connection:
        connection.execute(
            text("select set_config('app.current_organization', :a, true)"), {"a": str(A)}
        )
        rows = connection.execute(
            text("select label, later from goods_by_mail('buyer7@example.org')")
        )
        assert rows.all() == [("Good 7 of a", "x")]
    engine.dispose()
    with operations(fresh_database.owner_url) as op:
        op.assume_owner()
        with pytest.raises(DBAPIError, match="goods_search_"):
            op.execute("alter table goods drop column mail")


def test_prepared_plan_follows_the_tenant(catalog: Database) -> None:
    """A plan made for one tenant, prepared and run for another, gives the other its own rows."""
    with connected(catalog.app_url) as cursor:
        cursor.execute("prepare search as select label from goods_by_mail($1)")
        for tenant, letter in ((A, "a"), (B, "b")) * 4:
            cursor.execute(
                "select set_config('app.current_organization', %s, false)", [str(tenant)]
            )
            cursor.execute("execute search ('buyer7@example.org')")
            assert cursor.fetchall() == [(f"Good 7 of {letter}",)]

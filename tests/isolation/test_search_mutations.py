"""Searches with a part taken away: what then leaks, and what holds without it."""

import uuid
from collections.abc import Iterator

import pytest
from psycopg2.errors import InvalidEscapeSequence
from sqlalchemy import Engine, select
from tests.conftest import RequireService
from tests.fixtures.catalogs import (
    ASKED,
    A,
    B,
    Base,
    by_label,
    by_state,
    create_catalog,
    create_search,
    fill,
    operations,
)
from tests.isolation.test_search import expected, labels

from tenantry import create_tenant_engine
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected

ALL = set(range(1, 13))
FUNCTION = "goods_by_label(text)"
POLICY = by_label.search.policy().name


@pytest.fixture
def database(
    fresh_database: Database, tenantry_server: Server, require_service: RequireService
) -> Database:
    """Return a catalog of the test's own."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    create_catalog(fresh_database)
    return fresh_database


@pytest.fixture
def engine(database: Database) -> Iterator[Engine]:
    """Return the application's engine on the catalog."""
    engine = create_tenant_engine(database.app_url, mode="database", metadata=Base.metadata)
    yield engine
    engine.dispose()


def change(database: Database, *statements: str) -> None:
    """Execute statements as a superuser."""
    with connected(database.superuser_url) as cursor:
        for statement in statements:
            cursor.execute(statement)


def found(engine: Engine) -> set[str]:
    """Return what tenant A finds by its number 1, after B has looked."""
    labels(engine, B, select(by_label("good 1")))
    return labels(engine, A, select(by_label("good 1")))


def test_a_searcher_beyond_the_wall_leaks(database: Database, engine: Engine) -> None:
    """The wall is what keeps a search in: a role with BYPASSRLS finds everybody's rows."""
    assert found(engine) == expected("a", {1, 10, 11, 12})
    change(database, f"alter function {FUNCTION} owner to tenantry_maintenance")
    assert found(engine) == expected("a", ALL) | expected("b", ALL)


def test_without_the_wall_the_search_itself_holds(database: Database, engine: Engine) -> None:
    """The tenant rule stands in the search too: both of the wall's policies opened, none leaks."""
    for policy in ("goods_tenant", "goods_tenant_wall"):
        change(database, f"alter policy {policy} on goods using (true)")
    with connected(database.app_url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [str(A)])
        cursor.execute("select label from goods_by_label('good 1')")
        assert {label for (label,) in cursor.fetchall()} == expected("a", {1, 10, 11, 12})
        change(
            database,
            f"alter policy {POLICY} on goods using (label ilike '%good 1 %')",
        )
        cursor.execute("select label from goods_by_label('good 1')")
        assert {label for (label,) in cursor.fetchall()} == expected("a", {1}) | expected("b", {1})


def test_without_its_policy_a_search_finds_the_tenants_rows(
    database: Database, engine: Engine
) -> None:
    """What is lost with the policy is the search, not the wall."""
    change(database, f"drop policy {POLICY} on goods")
    assert found(engine) == expected("a", ALL)


def test_without_its_pin_a_search_means_what_it_meant(database: Database, engine: Engine) -> None:
    """A body in which each name has its schema does not look any up; the pin is the second lock."""
    change(database, f"alter function {FUNCTION} reset search_path", "create schema planted")
    change(
        database,
        "create table planted.goods as select * from public.goods",
        "create function planted.set_config(text, text, boolean) returns text language sql "
        "return null",
        "create domain planted.text as pg_catalog.text check (false)",
        "grant usage on schema planted to public",
        "grant select on planted.goods to public",
    )
    with connected(database.app_url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [str(A)])
        cursor.execute("set search_path = planted, pg_catalog, public")
        cursor.execute("select label from public.goods_by_label('good 1')")
        assert {label for (label,) in cursor.fetchall()} == expected("a", {1, 10, 11, 12})
        # A body without schemas, unpinned, is what the planted table is for.
        change(
            database,
            "create function by_text(wanted text) returns setof public.goods language sql stable "
            "security definer as 'select * from goods'",
            "alter function by_text(text) owner to goods_by_label_searcher",
            "grant select on planted.goods to goods_by_label_searcher",
        )
        cursor.execute("select label from public.by_text('good 1')")
        leaked = {label for (label,) in cursor.fetchall()}
        assert leaked == expected("a", ALL) | expected("b", ALL)


def test_a_pattern_left_as_it_is_tells_of_other_tenants(database: Database) -> None:
    """Without the escapes, an error tells A of a row of B's, where no index holds the two apart."""
    change(
        database,
        "update goods set label = 'Secret plan' where label = 'Good 3 of b'",
    )

    def told(value: str) -> bool:
        with connected(database.app_url) as cursor:
            cursor.execute("select set_config('app.current_organization', %s, false)", [str(A)])
            # The planner asks the cheaper condition first, and that is not the tenant's.
            cursor.execute("set enable_indexscan = off")
            cursor.execute("set enable_bitmapscan = off")
            try:
                cursor.execute("select count(*) from goods_by_label(%s)", [value])
            except InvalidEscapeSequence:
                return True
            assert cursor.fetchall() == [(0,)]
            return False

    guesses = ("Secret p\\", "Secret q\\")
    assert [told(guess) for guess in guesses] == [False, False]
    rule = by_label.search.policy().using or ""
    setting = rule.split("current_setting('tenantry.")[1].split("'")[0]
    change(
        database,
        f"alter policy {POLICY} on goods using (organization_id = nullif(current_setting("
        "'app.current_organization', true), '')::uuid and label ilike "
        f"(select substr(nullif(current_setting('tenantry.{setting}', true), ''), 2)))",
    )
    assert [told(guess) for guess in guesses] == [True, False]


LOOKUPS = [
    (search, values, numbers)
    for search, values, numbers in ASKED
    if search.search.match in {"equals", "between", "equals_ignoring_case", "key_equals"}
]


def keep_plans(database: Database) -> None:
    """Make the searches again that can keep their plans."""
    with operations(database.owner_url) as op:
        op.assume_owner()
        for each, _, _ in LOOKUPS:
            op.drop_tenant_search(each.search.name, each.search.table)
            create_search(op, each, keep_plan=True)


def test_a_kept_plan_keeps_no_tenant(database: Database) -> None:
    """One connection, and a plan that was kept long ago: each call finds its own tenant's rows."""
    keep_plans(database)
    engine = create_tenant_engine(
        database.app_url, metadata=Base.metadata, pool_size=1, max_overflow=0
    )
    for search, values, numbers in LOOKUPS:
        for _ in range(8):
            for tenant, letter in ((A, "a"), (B, "b")):
                assert labels(engine, tenant, select(search(*values))) == expected(letter, numbers)
            with engine.connect() as connection:
                assert connection.execute(select(search(*values))).all() == []
    engine.dispose()


NEW = str(uuid.UUID(int=0xF))


def pages_read_after(database: Database, first: str, call: str) -> int:
    """Return how much a call reads for A when another tenant was first on its connection."""
    with connected(database.app_url) as cursor:
        for tenant in (*[first] * 8, str(A), str(A)):
            cursor.execute("select set_config('app.current_organization', %s, false)", [tenant])
            cursor.execute(f"explain (analyze, buffers, format json) select * from {call}")
            (plan,) = cursor.fetchone() or ()
        pages: int = plan[0]["Plan"]["Shared Hit Blocks"]
        return pages


@pytest.mark.parametrize("first", [str(B), NEW, ""], ids=["small", "new", "nobody"])
def test_a_plan_that_is_kept_reads_no_more_than_one_of_its_own(
    database: Database, first: str
) -> None:
    """By isolate_table's statistics it is the same whoever was first, and nobody makes none."""
    fill(database, A, "a", count=20_000)
    change(database, "vacuum analyze goods")
    call = "goods_by_mail('buyer15000@example.org')"
    planned = pages_read_after(database, first, call)
    keep_plans(database)
    assert pages_read_after(database, first, call) <= planned
    # What docs/search.md warns of: statistics that tell a new tenant has nothing.
    change(database, "alter table goods alter column organization_id set statistics -1")
    change(database, "vacuum analyze goods")
    assert (pages_read_after(database, first, call) > 5 * planned) == (first == NEW)


def test_a_rare_value_is_found_by_the_index(database: Database) -> None:
    """What the planner takes for a column of one value singles a rare one out all the same.

    By a plain `=` it would read all of the tenant's rows.
    """
    fill(database, A, "a", count=20_000)
    change(
        database,
        "update goods set state = 'fresh' where label !~ 'Good [1-9] '",
        "alter table goods alter column state set (n_distinct = 1)",
        "vacuum full goods",
        "analyze goods",
    )
    call = "goods_by_state('gone')"
    read = pages_read_after(database, str(A), call)
    rule = by_state.search.policy().using or ""
    bounds = rule.split(" and ", maxsplit=1)[1].split(" and ")
    equal = bounds[0].replace("operator(pg_catalog.>=)", "=")
    change(
        database,
        f"alter policy {by_state.search.policy().name} on goods using ("
        f"{rule.split(' and ', maxsplit=1)[0]} and {equal})",
    )
    assert pages_read_after(database, str(A), call) > 5 * read


@pytest.mark.parametrize("first", [NEW, ""], ids=["new tenant", "no tenant"])
def test_a_kept_plan_would_read_all_of_a_large_tenant(database: Database, first: str) -> None:
    """A search is planned for the tenant that calls, not for who had the connection before."""
    fill(database, A, "a", count=20_000)
    # As it is by default: isolate_table lets a new tenant count as average.
    change(database, "alter table goods alter column organization_id set statistics -1")
    change(database, "vacuum analyze goods")
    call = "goods_by_label('good 19999 of')"
    planned = pages_read_after(database, first, call)
    change(database, f"alter function {FUNCTION} reset plan_cache_mode")
    assert pages_read_after(database, first, call) > 5 * planned

"""A tenant's queries keep their plans: each access goes through an index led by the tenant.

The tables and the queries are those whose times are measured (bench/shapes.py); their statistics
are exact, since the sample of ANALYZE is larger than each of them. What is compared is the shape:
the kinds of nodes, the indexes, their conditions, and what is left for a filter.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from bench.grounds import (
    ABSENT,
    EXPRESSIONS,
    LARGEST,
    SMALL,
    Ground,
    Tenant,
    change_rule,
    change_statistics,
    lay,
    sample,
    superuser,
    take_index_apart,
)
from bench.statements import PAGE, SHAPES, Asker, Backend, Shape, Way, backend, kept_plan
from psycopg2.extensions import cursor as Cursor  # noqa: N812
from sqlalchemy import Column, MetaData, Table, Uuid, event, func, select
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session

from tenantry import DEFAULT_CONFIG, create_tenant_engine, current_tenant, set_tenant
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected

SETTING = DEFAULT_CONFIG.organization_setting
EVEN = Ground("even", 24_000)
SKEWED = Ground("skewed", 24_000, skewed=True)
PARTED = Ground("parted", 8_000, partitions=8)
WHO: dict[str, tuple[Ground, int | str]] = {
    "one of equals": (EVEN, 1),
    "largest": (SKEWED, LARGEST),
    "beside the largest": (SKEWED, 1),
    "small": (SKEWED, SMALL),
    "without rows": (SKEWED, ABSENT),
}
BY_KEY = "Index Scan using items_pkey if (organization_id = tenant) AND (id = ?)"
PLANS = {
    "point": [BY_KEY],
    "count": ["Aggregate", "Index Only Scan using items_folder if (organization_id = tenant)"],
    "page of 50": ["Limit", "Index Scan Backward using items_page if (organization_id = tenant)"],
    "join": [
        "Nested Loop",
        "Index Scan using folders_pkey if (organization_id = tenant) AND (id = ?)",
        "Bitmap Heap Scan",
        "Bitmap Index Scan using items_folder if (organization_id = tenant) AND (folder_id = ?)",
    ],
    "insert 1": ["Insert", "Result"],
    "insert 1,000": ["Insert", "Values Scan"],
    "update by key": ["Update", BY_KEY],
    "delete by key": ["Delete", BY_KEY],
}
# The tenant, as PostgreSQL prints it.
PRINTED = f"(NULLIF(current_setting('{SETTING}'::text, true), ''::text))::uuid"
OPTIONS = "format json, costs off"
QUERIED = [shape for shape in SHAPES if not shape.name.startswith("insert")]


class Plan:
    """A plan in JSON, and its shape: a line for each node, without values."""

    def __init__(self, text: str, tenant: Tenant) -> None:
        """Take what EXPLAIN printed for a tenant."""
        (explained,) = json.loads(text)
        self.nodes = list(_walk(explained["Plan"]))
        self.shape = [_line(node, tenant) for node in self.nodes]

    @property
    def partitions(self) -> set[str]:
        """Return which partitions of the items it reads or changes."""
        names = {str(node.get("Relation Name", "")) for node in self.nodes}
        return {name for name in names if name.startswith("items_")}


def _walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for inner in node.get("Plans", []):
        yield from _walk(inner)


def _line(node: dict[str, Any], tenant: Tenant) -> str:
    line = str(node.get("Operation") or node["Node Type"])
    if node.get("Scan Direction") == "Backward":
        line += " Backward"
    if "Index Name" in node:
        line += f" using {node['Index Name']}"
    for key, word in (("Index Cond", "if"), ("Filter", "where"), ("One-Time Filter", "once")):
        if key in node:
            line += f" {word} {_condition(node[key], tenant)}"
    return line


def _condition(text: str, tenant: Tenant) -> str:
    text = text.replace(PRINTED, "tenant").replace(f"'{tenant.id}'::uuid", "tenant")
    text = re.sub(r"'[^']*'::uuid|\$[0-9]+", "?", text)
    return text[1:-1] if text.startswith("((") else text


class Ask:
    """Asks for plans as the application, on the grounds that all tests of this module share."""

    def __init__(self, database: Database, connection: Backend) -> None:
        """Take a database in which the grounds are laid."""
        self.database, self.connection = database, connection
        with superuser(database) as cursor:
            self.tenants = {
                who: sample(cursor, ground, name) for who, (ground, name) in WHO.items()
            }
            self.parted = sample(cursor, PARTED, 1)

    def plan(self, shape: Shape, ground: Ground, tenant: Tenant, way: Way = "policy") -> Plan:
        """Return the plan of a query as the application sends it."""
        self.connection.act_for(tenant)
        schema = ground.plain if way == "explicit" else ground.name
        text = shape.simple(schema, way, tenant, next(shape.values(tenant))).decode()
        return Plan("\n".join(self.connection.run(f"explain ({OPTIONS}) {text}")), tenant)

    def kept(self, shape: Shape, tenant: Tenant) -> list[Plan]:
        """Return the plans by which a tenant is served that were kept from one or another."""
        self.connection.forget()
        return [
            Plan(kept_plan(self.connection, shape, asker, OPTIONS), tenant)
            for who, other in self.tenants.items()
            if WHO[who][0] is SKEWED
            for mode in ("auto", "force_generic_plan")
            for asker in (Asker(SKEWED.name, "policy", (tenant,), other, mode),)
        ]


@pytest.fixture(scope="module")
def ask(tenantry_server: Server) -> Iterator[Ask]:
    """Return the grounds, laid once: no test leaves anything behind."""
    database = tenantry_server.create_database()
    with ExitStack() as stack:
        stack.callback(database.drop)
        lay(database, EVEN, SKEWED, PARTED)
        yield Ask(database, stack.enter_context(backend(database.app_url)))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("who", WHO)
def test_tenants_query_is_served_by_an_index_led_by_the_tenant(
    ask: Ask, who: str, shape: Shape
) -> None:
    """Whatever a tenant's size, the policy is an index condition; nothing is sorted or filtered."""
    ground, _ = WHO[who]
    assert ask.plan(shape, ground, ask.tenants[who]).shape == PLANS[shape.name]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("who", ["one of equals", "largest", "beside the largest"])
def test_plan_is_that_of_an_explicit_filter(ask: Ask, who: str, shape: Shape) -> None:
    """Row-level security makes the planner choose nothing else than a WHERE would."""
    (ground, _), tenant = WHO[who], ask.tenants[who]
    explicit = ask.plan(shape, ground, tenant, "explicit")
    assert ask.plan(shape, ground, tenant).shape == explicit.shape


@pytest.mark.parametrize("shape", QUERIED, ids=lambda shape: shape.name)
def test_plan_that_is_kept_from_one_tenant_is_that_of_another(ask: Ask, shape: Shape) -> None:
    """Not even a plan made for a tenant without rows is another one than the largest tenant's."""
    plans = ask.kept(shape, ask.tenants["largest"])
    assert len(plans) == 8
    assert all(plan.shape == PLANS[shape.name] for plan in plans)


@pytest.mark.parametrize("shape", QUERIED, ids=lambda shape: shape.name)
def test_partitions_of_others_are_not_executed(ask: Ask, shape: Shape) -> None:
    """By the policy alone all partitions but the tenant's are left out before the execution."""
    plan = ask.plan(shape, PARTED, ask.parted)
    assert len(plan.partitions) == 1
    removed = [node["Subplans Removed"] for node in plan.nodes if "Subplans Removed" in node]
    assert set(removed) == {PARTED.partitions - 1}


@pytest.mark.parametrize("shape", QUERIED, ids=lambda shape: shape.name)
def test_partitions_of_others_are_not_planned_in_mode_both(ask: Ask, shape: Shape) -> None:
    """With the filter too the planner sees one partition, as it does without row security."""
    both, explicit = (ask.plan(shape, PARTED, ask.parted, way) for way in ("both", "explicit"))
    assert len(both.partitions) == 1
    # Nothing but a look at the tenant, once, is added.
    assert [
        line for line in both.shape if line != "Result once (tenant = tenant)"
    ] == explicit.shape


def test_what_mode_both_sends_leaves_out_partitions(ask: Ask) -> None:
    """The session layer writes the filter so that the planner sees it."""
    items = Table(
        "items",
        MetaData(schema=PARTED.name),
        Column("organization_id", Uuid, primary_key=True),
        Column("id", Uuid, primary_key=True),
    )
    engine = create_tenant_engine(ask.database.app_url, mode="both", metadata=items.metadata)
    sent: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(_connection: Any, _cursor: Any, text: str, parameters: Any, *_: object) -> None:
        sent.append((text, parameters))

    with Session(engine) as session:
        set_tenant(session, ask.parted.id)
        count = session.scalar(select(func.count()).select_from(items))
    engine.dispose()
    ((text, parameters),) = sent
    with connected(ask.database.app_url) as cursor:
        plan = explained(cursor, cursor.mogrify(text, parameters).decode(), ask.parted)
    assert count == 1000
    assert len(plan.partitions) == 1
    assert not any("Append" in line for line in plan.shape)


MUTATIONS: dict[str, tuple[str, Callable[[Cursor], None]]] = {
    "tenant column cast to text": (
        "point",
        lambda cursor: change_rule(cursor, SKEWED, EXPRESSIONS["column as text"]),
    ),
    "tenant in a sub-select": (
        "count",
        lambda cursor: change_rule(cursor, SKEWED, EXPRESSIONS["sub-select"]),
    ),
    "tenant behind a case": (
        "point",
        lambda cursor: change_rule(
            cursor, SKEWED, f"case when organization_id = {current_tenant()} then true end"
        ),
    ),
    "tenant or nothing": (
        "update by key",
        lambda cursor: change_rule(
            cursor, SKEWED, f"organization_id = {current_tenant()} or organization_id is null"
        ),
    ),
    "index without the tenant": ("page of 50", lambda cursor: take_index_apart(cursor, SKEWED)),
    "index without the order": (
        "page of 50",
        lambda cursor: cursor.execute("drop index skewed.items_page"),
    ),
    "no index": ("join", lambda cursor: cursor.execute("drop index skewed.items_folder")),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_mutation_changes_a_plan(ask: Ask, mutation: str) -> None:
    """Each of these faults, which cost a tenant or all of them dearly, is seen in a plan."""
    name, mutate = MUTATIONS[mutation]
    shape = next(shape for shape in SHAPES if shape.name == name)
    tenant = ask.tenants["beside the largest"]
    text = shape.simple(SKEWED.name, "policy", tenant, next(shape.values(tenant)))
    with mutated(ask, lambda _: None) as cursor:
        assert explained(cursor, text.decode(), tenant).shape == PLANS[name]
    with mutated(ask, mutate) as cursor:
        assert explained(cursor, text.decode(), tenant).shape != PLANS[name]


def test_default_statistics_would_keep_a_plan_that_suits_one_tenant_alone(ask: Ask) -> None:
    """Where the planner knows each tenant, one without rows leaves a plan that reads all rows."""
    with mutated(ask, lambda cursor: change_statistics(cursor, SKEWED, -1)) as cursor:
        cursor.execute("set local plan_cache_mode = force_generic_plan")
        cursor.execute(f"prepare kept as {PAGE.statement(SKEWED.name, 'policy')}")
        first, second = (
            explained(cursor, "execute kept", ask.tenants[who]).shape
            for who in ("without rows", "largest")
        )
    assert first == second != PLANS[PAGE.name]
    assert any("Sort" in line for line in second)


def test_each_tenant_table_of_the_migrations_counts_on_an_average_tenant(app_url: URL) -> None:
    """isolate_table leaves no tenant column with the statistics of each tenant."""
    with connected(app_url) as cursor:
        cursor.execute(
            "select c.relname, a.attstattarget from pg_catalog.pg_class as c"
            " join pg_catalog.pg_attribute as a on a.attrelid = c.oid"
            " where c.relkind in ('r', 'p') and c.relrowsecurity and a.attname = %s",
            (DEFAULT_CONFIG.tenant_column,),
        )
        found = dict(cursor.fetchall())
    assert {"tests", "test_sets", "test_results"} <= found.keys()
    assert set(found.values()) == {1}


def test_wall_stands_where_the_server_refuses_the_statistic(empty_database: Database) -> None:
    """Citus does, of a distributed table: a warning, and everything else is as it should be."""
    with superuser(empty_database) as cursor:
        cursor.execute(
            "create function refuse() returns event_trigger language plpgsql as $$ begin"
            " if current_query() like '%set statistics%' then"
            " raise feature_not_supported using message = 'not of a distributed table'; end if;"
            " end $$;"
            " create event trigger refuse on ddl_command_start when tag in ('ALTER TABLE')"
            " execute function refuse()"
        )
    few = Ground("few", 2_000)
    lay(empty_database, few)
    with superuser(empty_database) as cursor:
        tenant = sample(cursor, few, 1)
        cursor.execute(
            "select coalesce(attstattarget, -1) from pg_catalog.pg_attribute"
            " where attrelid = 'few.items'::regclass and attname = 'organization_id'"
        )
        assert cursor.fetchall() == [(-1,)]
    with backend(empty_database.app_url) as connection:
        assert connection.run("select count(*) from few.items") == ["0"]
        connection.act_for(tenant)
        assert connection.run("select count(*) from few.items") == ["1000"]


@contextmanager
def mutated(ask: Ask, mutate: Callable[[Cursor], None]) -> Iterator[Cursor]:
    """Yield a cursor of the application's role in a transaction that has a fault, and ends here."""
    with superuser(ask.database) as cursor:
        cursor.execute("begin")
        mutate(cursor)
        cursor.execute(f"set local role {DEFAULT_CONFIG.app_role}")
        yield cursor


def explained(cursor: Cursor, text: str, tenant: Tenant) -> Plan:
    """Return the plan for a tenant."""
    cursor.execute("select set_config(%s, %s, true)", (SETTING, tenant.id))
    cursor.execute(f"explain ({OPTIONS}) {text}")
    ((plan,),) = cursor.fetchall()
    return Plan(json.dumps(plan), tenant)

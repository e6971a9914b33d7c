"""The operations of searches: their SQL, what they refuse, and their place in autogenerate."""

import re
from typing import Any, get_args

import pytest
from alembic.autogenerate import produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, sessionmaker
from sqlalchemy.pool import NullPool
from tests.conftest import RequireService
from tests.fixtures.catalogs import (
    SEARCHES,
    A,
    Base,
    Good,
    by_label,
    create_catalog,
    create_search,
    operations,
)
from tests.migration.conftest import ROOT, Dump, Execute
from tests.migration.test_ddl import ADOPTER, RULE, Script

from tenantry import (
    ConfigurationError,
    TenantSearch,
    UnsearchableError,
    create_tenant_engine,
    tenant_scope,
)
from tenantry.rls import Match
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected


@pytest.fixture
def catalog(
    fresh_database: Database, tenantry_server: Server, require_service: RequireService
) -> Database:
    """Return a database of the test's own, with a search of each kind."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    create_catalog(fresh_database)
    return fresh_database


def pending(database: Database) -> tuple[list[str], list[str]]:
    """Return what autogenerate writes into a revision, up and down, of this catalog's searches."""
    engine = create_engine(database.owner_url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        script = produce_migrations(context, Base.metadata)
        assert script.upgrade_ops is not None
        assert script.downgrade_ops is not None
        up, down = (
            [
                line.strip()
                for line in render_python_code(ops, migration_context=context).splitlines()
                if "tenant_search" in line
            ]
            for ops in (script.upgrade_ops, script.downgrade_ops)
        )
    return up, down


def test_statements_of_a_search() -> None:
    """A policy that only takes away, for a role of its own; a function that only it runs as."""
    script = Script()
    script.op.create_tenant_search(
        "find", "goods", "cost", match="between", type="numeric(9, 2)", schema="shop"
    )
    policy, function = script.statements[3:5]
    value = (
        "pg_catalog.substr(nullif(pg_catalog.current_setting('tenantry.search_{}', true), ''), 2)"
        "::numeric"
    )
    name = function.split("tenantry.search_")[1].split("_1'")[0]
    assert policy == (
        f'create policy "goods_search_{name[:4]}" on "shop"."goods" as restrictive for select '
        f'to "find_searcher" using ("organization_id" = {RULE} '
        f'and "cost" operator(pg_catalog.>=) (select {value.format(f"{name}_1")}) '
        f'and "cost" operator(pg_catalog.<=) (select {value.format(f"{name}_2")}))'
    )
    assert function.startswith(
        'create function "shop"."find"(lowest numeric, highest numeric)\n'
        '  returns setof "shop"."goods"\n'
        "  language plpgsql stable strict security definer rows 100\n"
        "  set search_path = pg_catalog, pg_temp\n"
        "  set plan_cache_mode = force_custom_plan\nas $search$\nbegin\n  perform pg_catalog.set_"
    )
    assert function.endswith(
        '  return query select item.* from "shop"."goods" as item where $1 is not null;\n'
        "end\n$search$"
    )
    assert script.statements[2] == 'grant select on table "shop"."goods" to "find_searcher"'
    assert script.statements[6:9] == [
        'revoke all on function "shop"."find"(numeric, numeric) from public',
        'grant execute on function "shop"."find"(numeric, numeric) to "tenantry_app"',
        'alter function "shop"."find"(numeric, numeric) owner to "find_searcher"',
    ]


def test_a_search_that_keeps_its_plans_makes_none_for_nobody() -> None:
    """It returns at once without a tenant, whatever the setting is called, and pins no plan."""
    script = Script(ADOPTER)
    script.op.create_tenant_search(
        "find", "goods", "cost", match="between", type="numeric", schema="shop", keep_plan=True
    )
    function = script.statements[4]
    assert "plan_cache_mode" not in function
    assert (
        "begin\n  if nullif(pg_catalog.current_setting('shop.account', true), '') is null then\n"
        "    return;\n  end if;\n  perform "
    ) in function


@pytest.mark.parametrize(
    ("match", "type_", "detail"),
    [("contains_text", "text", None), ("contains", "jsonb", None), ("words", "tsvector", "simple")],
)
def test_plans_are_kept_of_lookups_alone(match: Match, type_: str, detail: str | None) -> None:
    """The plan of a small tenant reads all of its rows, where the index costs more than that."""
    with pytest.raises(UnsearchableError, match="would suit tenants of one size alone"):
        Script().op.create_tenant_search(
            "find", "goods", "c", match=match, type=type_, detail=detail, keep_plan=True
        )


def test_names_of_an_adopter_are_quoted() -> None:
    """Schemas, columns, settings and roles of any name reach the script as they are."""
    script = Script(ADOPTER)
    script.op.create_tenant_search(
        'by "k"', "it's", "a b", match="key_equals", type="jsonb", detail="k'%", schema="S 1"
    )
    policy = script.statements[3]
    assert 'on "S 1"."it\'s" as restrictive for select to "by ""k""_searcher"' in policy
    assert "\"account_id\" = nullif(current_setting('shop.account', true), '')::bigint" in policy
    assert "\"a b\" operator(pg_catalog.->>) 'k''%'::text" in policy
    assert 'to "app\'s 100%"' in script.text


@pytest.mark.parametrize(
    ("match", "type_", "detail", "message"),
    [
        ("equals", "uuid", None, "leakproof"),
        ("equals", "character varying(20)", None, "leakproof"),
        ("between", "timestamp with time zone", None, "leakproof"),
        ("equals", "citext", None, "with its schema"),
        ("equals", "jsonb", None, "not known to keep quiet"),
        ("equals", "numeric[]", None, "not known to keep quiet"),
        ("between", "public.state", None, "not known to keep quiet"),
        ("contains_text", "jsonb", None, "not known to keep quiet"),
        ("contains", "text", None, "not known to keep quiet"),
        ("words", "text", "english", "not known to keep quiet"),
        ("words", "tsvector", None, "as detail"),
        ("equals", "numeric", "x", "as detail"),
        ("matches", "text", None, "is no match"),
        ("equals", "numeric) = 1 or true --", None, "is no type"),
        ("equals", "a.b.c", None, "is no type"),
    ],
)
def test_operators_that_could_tell_are_refused(
    match: Any, type_: str, detail: str | None, message: str
) -> None:
    """Nothing but the listed operators on the listed types becomes a search."""
    with pytest.raises(UnsearchableError, match=message):
        Script().op.create_tenant_search(
            "find", "goods", "c", match=match, type=type_, detail=detail
        )


@pytest.mark.parametrize(
    ("before", "match", "type_", "message"),
    [
        ("", "equals", "public.state", "is of type numeric"),
        ("alter table goods no force row level security", "equals", "numeric", "has no wall"),
        ("drop policy goods_tenant_wall on goods", "equals", "numeric", "has no wall"),
        (
            "alter policy goods_tenant_wall on goods rename to a_wall",
            "equals",
            "numeric",
            "policy a_wall of .* comes before",
        ),
        (
            "create type pair as (a int); alter table goods alter cost type pair using null",
            "equals",
            "public.pair",
            "neither built in",
        ),
        ("create role by_cost_searcher login", "equals", "numeric", "may more than a search"),
        (
            "create role by_cost_searcher; grant tenantry_maintenance to by_cost_searcher",
            "equals",
            "numeric",
            "may more than a search",
        ),
    ],
)
def test_what_the_server_shows_to_be_unfit_is_refused(
    tenantry_server: Server,
    fresh_database: Database,
    require_service: RequireService,
    execute: Execute,
    before: str,
    match: Any,
    type_: str,
    message: str,
) -> None:
    """A wrong type, a missing wall, a wall in the way and a role that may more are told."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    with_goods(fresh_database)
    if before:
        execute(fresh_database.superuser_url, *before.split("; "))
    try:
        with operations(fresh_database.owner_url) as op:
            op.assume_owner()
            with pytest.raises(DBAPIError, match=message):
                op.create_tenant_search("by_cost", "goods", "cost", match=match, type=type_)
    finally:
        execute(fresh_database.superuser_url, "drop role if exists by_cost_searcher")


def with_goods(database: Database) -> None:
    """Create a walled table without searches."""
    with operations(database.owner_url) as op:
        op.assume_owner()
        op.execute("create type state as enum ('fresh')")
        op.execute(
            "create table goods (organization_id uuid not null, id uuid not null, cost numeric, "
            "primary key (organization_id, id))"
        )
        op.isolate_table("goods")


def test_dropped_search_leaves_nothing(catalog: Database, dump: Dump, execute: Execute) -> None:
    """After drop_tenant_search the database is as it was before, for good and again."""
    name = by_label.search.name
    whole = dump(catalog)
    for _ in range(2):
        with operations(catalog.owner_url) as op:
            op.assume_owner()
            op.drop_tenant_search(name, "goods")
        assert f"{name}_searcher" not in dump(catalog)
        assert f"{name}(" not in dump(catalog)
        with operations(catalog.owner_url) as op:
            op.assume_owner()
            create_search(op, by_label)
        assert sorted(dump(catalog).splitlines()) == sorted(whole.splitlines())
    members = execute(
        catalog.superuser_url,
        "select r.rolname from pg_auth_members m join pg_roles r on r.oid = m.roleid "
        "where r.rolname like 'goods_by_%' and m.member = 'tenantry_owner'::regrole",
    )
    assert members == []


def test_migrator_who_may_not_make_roles_is_told(catalog: Database, execute: Execute) -> None:
    """The error names the role that is missing and what a DBA does about it."""
    engine = create_engine(catalog.superuser_url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("set session authorization tenantry_app")
        op = Operations(MigrationContext.configure(connection))
        with pytest.raises(DBAPIError, match="grant unmade_searcher to tenantry_owner"):
            op.create_tenant_search(  # type: ignore[attr-defined]
                "unmade", "goods", "cost", match="equals", type="numeric"
            )


def test_autogenerate_writes_missing_changed_and_forgotten_searches(catalog: Database) -> None:
    """Nothing where both agree; else the operations that mend it, whose downgrade undoes them."""
    assert pending(catalog) == ([], [])
    searches = Base.metadata.info["tenantry_searches"]
    declared = dict(searches)
    with operations(catalog.owner_url) as op:
        op.assume_owner()
        op.drop_tenant_search("goods_by_mail", "goods")
        op.drop_tenant_search("goods_by_kind", "goods")
        op.create_tenant_search(
            "goods_by_kind",
            "goods",
            "payload",
            match="key_equals",
            type="jsonb",
            detail="other",
            keep_plan=True,
        )
    try:
        del searches[None, "goods_by_tags"]
        up, down = pending(catalog)
    finally:
        searches.update(declared)
    assert [line.split(",")[0] for line in up] == [
        "op.drop_tenant_search('goods_by_kind'",
        "op.drop_tenant_search('goods_by_tags'",
        "op.create_tenant_search('goods_by_mail'",
        "op.create_tenant_search('goods_by_kind'",
    ]
    assert "match='key_equals', type='jsonb', detail='kind'" in up[-1]
    assert any("detail='other'" in line and "keep_plan=True" in line for line in down)
    assert not any("keep_plan" in line for line in up)
    for lines in (up, down):
        with operations(catalog.owner_url) as op:
            op.assume_owner()
            for line in lines:
                exec(line, {"op": op})  # noqa: S102 - what a revision file does
        if lines is up:
            (missing,), _ = pending(catalog)
            assert missing.startswith("op.create_tenant_search('goods_by_tags'")
    again, _ = pending(catalog)
    assert len(again) == 3


def test_declarations_are_checked() -> None:
    """A name stands for one search, and a search is of one tenant table's own class."""
    assert {each.search.match for each in SEARCHES} == set(get_args(Match))
    with pytest.raises(ConfigurationError, match="declared twice"):
        TenantSearch("goods_by_label", Good, Good.mail, match="contains_text")

    class Shared(DeclarativeBase):
        """A base without tenants."""

    class Colour(Shared):
        __tablename__ = "colours"
        name: Mapped[str] = mapped_column(primary_key=True)

    with pytest.raises(ConfigurationError, match="one tenant table"):
        TenantSearch("colours", Colour, Colour.name, match="contains_text")


def test_searches_of_the_documentation_are_made_and_used(
    fresh_database: Database, tenantry_server: Server, require_service: RequireService
) -> None:
    """Who follows docs/search.md has the searches that it shows."""
    require_service(tenantry_server.superuser, "extensions take a superuser")
    models, operation, use = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "search.md").read_text(), flags=re.DOTALL
    )
    names: dict[str, Any] = {"select": select}
    exec(models, names)  # noqa: S102 - the documentation's own
    with connected(fresh_database.superuser_url) as cursor:
        cursor.execute("create extension pg_trgm; create extension btree_gin")
    with operations(fresh_database.owner_url) as op:
        op.assume_owner()
        names["Base"].metadata.create_all(op.get_bind())
        op.isolate_table("customers")
        exec(operation, {"op": op})  # noqa: S102
        for name in ("customers_named", "customers_owing"):
            create_search(op, names[name])
    engine = create_tenant_engine(fresh_database.app_url, metadata=names["Base"].metadata)
    with tenant_scope(A, sessions=sessionmaker(engine)) as session:
        customer = names["Customer"]
        session.add_all([customer(name="Joanna", balance=n) for n in (99, 101)])
        session.flush()
        names["session"] = session
        exec(use, names)  # noqa: S102
        assert [each.balance for each in names["customers"]] == [101]
    engine.dispose()

"""Where filters are the only wall: functions and operators that the application wrote itself."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine, column, func, literal, select, true
from sqlalchemy.sql.elements import UnaryExpression
from sqlalchemy.sql.operators import custom_op
from tests.fixtures.attacks import (
    SECRET,
    Attack,
    attacked_world,
    check_refused,
    loot,
    orm,
    unwalled_engine,
)
from tests.fixtures.worlds import World, cursor_of

from assay.models import Test
from tenantry import UnfilterableStatementError
from tenantry.filters import Filtering
from tenantry.testing import Server

CODE = """
create function prompts(text) returns text language sql stable
  as $$ select string_agg(prompt, ',') from tests $$;
create function "Prompts"() returns setof text language sql stable
  as $$ select prompt from tests $$;
create function prompts_of(tests) returns text language sql stable
  as $$ select string_agg(prompt, ',') from tests $$;
create aggregate all_prompts(text) (sfunc = textcat, stype = text, finalfunc = prompts);
create operator ~~# (rightarg = text, function = prompts);
create function joined(text, text) returns text language sql stable as $$ select prompts($1) $$;
create operator ### (leftarg = text, rightarg = text, function = joined);
"""

tests: Any = Test.__table__
x = literal("x")


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return a database whose application has code of its own in it."""
    with attacked_world(tenantry_server, tenantry_template) as world:
        with cursor_of(world.open.superuser_url) as cursor:
            cursor.execute(CODE)
        yield world


@pytest.fixture(params=["filters", "auto"])
def engine(world: World, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """Return an engine without the database's wall, asked for filters or fallen back on them."""
    with unwalled_engine(world, request.param) as engine:
        yield engine


ATTACKS: dict[str, Attack] = {
    "function": lambda c: c.execute(select(func.prompts(x))),
    "function in other letters": lambda c: c.execute(select(func.PROMPTS(x))),
    "function whose name is quoted": lambda c: c.execute(select(func.Prompts())),
    "function in FROM": lambda c: c.execute(
        select(column("p")).select_from(func.Prompts().table_valued("p"))
    ),
    "function of a row": lambda c: c.execute(select(func.prompts_of(tests.table_valued()))),
    "function in a condition": orm(
        lambda s: s.scalars(select(Test).where(func.prompts(Test.prompt) != ""))
    ),
    "aggregate": lambda c: c.execute(select(func.all_prompts(tests.c.prompt))),
    "aggregate over a window": lambda c: c.execute(select(func.all_prompts(x).over())),
    "binary operator": lambda c: c.execute(select(x.op("###")(x))),
    "unary operator": lambda c: c.execute(
        select(UnaryExpression(x, operator=custom_op("~~#"), type_=x.type))
    ),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_code_of_the_application_is_refused(world: World, engine: Engine, attack: Attack) -> None:
    """What its body reads is not filtered, so it is not executed."""
    check_refused(world.open, engine, attack, UnfilterableStatementError)


@pytest.mark.parametrize("name", ["function", "aggregate", "binary operator"])
def test_code_that_the_probe_did_not_see_shows_other_tenants(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mutation: without what the probe says of it, the same attack brings B's rows home."""

    def forget(self: Filtering, tables: Any, shared: Any, _own_code: Any) -> None:
        self.tenant_tables |= frozenset(tables)
        self.shared_tables |= frozenset(shared)

    monkeypatch.setattr(Filtering, "learn", forget)
    with unwalled_engine(world) as engine:
        assert SECRET in loot(engine, ATTACKS[name])


def test_functions_of_the_server_and_of_extensions_are_executed(
    world: World, engine: Engine
) -> None:
    """Nothing is refused for being a function: only what the application wrote."""
    with cursor_of(world.open.superuser_url) as cursor:
        cursor.execute("create extension if not exists fuzzystrmatch")
    engine.dispose()
    query = select(func.levenshtein("a", "b"), func.length("abc"), x.op("||")("y")).where(true())
    assert "(1, 3, 'xy')" in loot(engine, lambda c: c.execute(query))

"""Where filters are the only wall: parameters that name another tenant."""

import contextlib
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Connection,
    Engine,
    Uuid,
    bindparam,
    cast,
    delete,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.exc import ObjectNotExecutableError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from tests.fixtures.attacks import (
    Attack,
    attacked_world,
    check_confined,
    check_refused,
    orm,
    shown,
    unwalled_engine,
)
from tests.fixtures.worlds import A, B, World, bound

from assay.models import Test, User
from tenantry import (
    CrossTenantError,
    UnfilterableStatementError,
    set_tenant,
    tenancy,
)
from tenantry.filters import BIND_NAME
from tenantry.testing import Server

tests: Any = Test.__table__
users: Any = User.__table__

RETURNED = (tests.c.organization_id, tests.c.prompt)
PLANTED = {"prompt": "planted", "expected": ["x"], "metric": "exact"}


class Renamed(DeclarativeBase):
    """Models that call the tenant column by another name."""


class Person(Renamed):
    """A user, whose organization is an attribute called otherwise."""

    __tablename__ = "users"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    owner: Mapped[uuid.UUID] = mapped_column("organization_id")
    email: Mapped[str]
    name: Mapped[str]


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


# The tenant as a parameter


def compiled(statement: Any, connection: Connection, **how: Any) -> Any:
    """Return the statement as the engine compiles it."""
    return statement.compile(connection.engine, **how)


def compiled_for_b(statement: Any, connection: Connection) -> Any:
    """Return it compiled in the midst of a statement of B's, with all values written into it."""
    found = []

    def compute() -> str:
        found.append(compiled(statement, connection, compile_kwargs={"literal_binds": True}))
        return "nothing"

    with bound(connection.engine, B) as session:
        parameter: Any = bindparam("p", callable_=compute)
        session.execute(select(User.id).where(User.name != parameter))
    return found[0]


OVERRIDES: dict[str, Attack] = {
    "select": lambda c: c.execute(select(tests.c.prompt), {BIND_NAME: B}),
    "select, bindparam()": lambda c: c.execute(
        select(tests.c.prompt).where(tests.c.organization_id == bindparam(BIND_NAME, B))
    ),
    "select, bindparam() before the filter": lambda c: c.execute(
        select(tests.c.prompt, bindparam(BIND_NAME, B))
    ),
    "select, compiled": lambda c: c.execute(compiled(select(tests.c.prompt), c), {BIND_NAME: B}),
    "select, compiled for B": lambda c: c.execute(compiled_for_b(select(tests.c.prompt), c)),
    "update": lambda c: c.execute(update(tests).values(category="x"), {BIND_NAME: B}),
    "update, one of many": lambda c: c.execute(
        update(tests).where(tests.c.prompt == bindparam("p")).values(category="x"),
        [{"p": "secret of a"}, {"p": "secret of b", BIND_NAME: B}],
    ),
    "delete": lambda c: c.execute(delete(tests), {BIND_NAME: B}),
    "insert": lambda c: c.execute(insert(tests), {**PLANTED, BIND_NAME: B}),
    "ORM select": orm(lambda s: s.execute(select(Test.prompt), {BIND_NAME: B})),
    "ORM delete": orm(lambda s: s.execute(delete(Test), {BIND_NAME: B})),
}


@pytest.mark.parametrize("attack", OVERRIDES.values(), ids=OVERRIDES)
def test_parameter_does_not_override_the_tenant(
    world: World, engine: Engine, attack: Attack
) -> None:
    """A parameter with the name of the filter's own changes no tenant."""
    # From SQLAlchemy 2.1 on no compiled statement is executed at all.
    check_refused(
        world.open,
        engine,
        attack,
        CrossTenantError,
        UnfilterableStatementError,
        ObjectNotExecutableError,
    )


def test_parameters_of_the_statement_do_not_override_the_tenant(
    world: World, engine: Engine
) -> None:
    """`params()` finds nothing to replace, or is refused."""

    def attack(connection: Connection) -> object:
        with contextlib.suppress(CrossTenantError):
            return connection.execute(select(tests.c.prompt).params({BIND_NAME: B})).all()
        connection.rollback()
        return []

    check_confined(world.open, engine, attack)


def test_without_the_gate_a_parameter_overrides_the_tenant(
    world: World, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Comparing the filter's parameter is what holds: without it A reads B's rows."""
    monkeypatch.setattr(tenancy, "check_statement", lambda *_: None)
    with pytest.raises(pytest.fail.Exception):
        check_refused(world.open, engine, OVERRIDES["select"], CrossTenantError)


MOVES: dict[str, Attack] = {
    "insert": lambda c: c.execute(insert(tests).values(organization_id=B, **PLANTED)),
    "insert, values swapped": lambda c: c.execute(
        insert(tests).values(
            organization_id=bindparam("foo"), category=bindparam(BIND_NAME), **PLANTED
        ),
        {"foo": B, BIND_NAME: str(A)},
    ),
    "insert, names swapped": lambda c: c.execute(
        insert(tests).values(
            organization_id=bindparam("foo", type_=Uuid()),
            category=bindparam("bar"),
            **PLANTED,
        ),
        {"foo": B, "bar": str(A)},
    ),
    "insert, many": lambda c: c.execute(
        insert(tests), [PLANTED | {"organization_id": A}, PLANTED | {"organization_id": B}]
    ),
    "insert, many, returning": lambda c: c.execute(
        insert(tests).returning(tests.c.id),
        [PLANTED | {"organization_id": A}, PLANTED | {"organization_id": B}],
    ),
    "insert in a CTE": lambda c: c.execute(
        select(
            insert(tests).values(organization_id=B, **PLANTED).returning(tests.c.id).cte("planted")
        )
    ),
    "update": lambda c: c.execute(update(tests).values(organization_id=B)),
    "update, values swapped": lambda c: c.execute(
        update(tests)
        .values(organization_id=bindparam("foo"))
        .where(tests.c.category.is_distinct_from(bindparam("bar"))),
        {"foo": B, "bar": str(A)},
    ),
    "update, ordered": lambda c: c.execute(
        update(tests).ordered_values((tests.c.category, "x"), (tests.c.organization_id, B))
    ),
    "update in a CTE": lambda c: c.execute(
        select(update(tests).values(organization_id=B).returning(tests.c.id).cte("moved"))
    ),
    "ORM insert": orm(lambda s: s.execute(insert(Person).values(owner=B, email="e", name="n"))),
    "ORM insert, many": orm(
        lambda s: s.execute(insert(Person), [{"owner": B, "email": "e", "name": "n"}])
    ),
    "ORM insert, returning": orm(
        lambda s: s.scalars(
            insert(Person).returning(Person.owner),
            [{"owner": B, "email": f"{n}@e", "name": "n"} for n in "12"],
        )
    ),
    "ORM update": orm(lambda s: s.execute(update(Person).values({Person.owner: B}))),
    "ORM bulk insert": orm(
        lambda s: s.bulk_insert_mappings(
            Person.__mapper__, [{"owner": B, "email": "e", "name": "n"}]
        )
    ),
    "ORM object": orm(lambda s: setattr(s.scalars(select(Person)).one(), "owner", B)),
    "ORM object, expression": orm(
        lambda s: setattr(s.scalars(select(Person)).one(), "owner", cast(literal(str(B)), Uuid))
    ),
}


@pytest.mark.parametrize("attack", MOVES.values(), ids=MOVES)
def test_row_is_not_filed_under_another_tenant(
    world: World, engine: Engine, attack: Attack
) -> None:
    """However another tenant is named as a row's, and whatever its parameter, it is refused."""
    check_refused(world.open, engine, attack, CrossTenantError)


OWN: dict[str, Attack] = {
    "nobody": lambda c: c.execute(insert(tests).values(**PLANTED).returning(*RETURNED)),
    "itself": lambda c: c.execute(
        insert(tests).values(organization_id=A, **PLANTED).returning(*RETURNED)
    ),
    "itself, by another parameter": lambda c: c.execute(
        insert(tests).values(organization_id=bindparam("foo"), **PLANTED).returning(*RETURNED),
        {"foo": A},
    ),
    "itself, in a CTE": lambda c: c.execute(
        select(
            insert(tests).values(organization_id=A, **PLANTED).returning(*RETURNED).cte("planted")
        )
    ),
    "nobody, in a CTE": lambda c: c.execute(
        select(insert(tests).values(**PLANTED).returning(*RETURNED).cte("planted"))
    ),
    "itself, in an update": lambda c: c.execute(
        update(tests).values(organization_id=A, prompt="planted").returning(*RETURNED)
    ),
}


@pytest.mark.parametrize("write", OWN.values(), ids=OWN)
def test_tenant_may_name_itself(world: World, engine: Engine, write: Attack) -> None:
    """A row that is filed under the own tenant, by name or by leaving it out, is the tenant's."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        rows: Any = shown(write(connection))
        assert {tuple(row) for row in rows} == {(A, "planted")}
        connection.rollback()

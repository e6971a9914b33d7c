"""Where filters are the only wall: statements in the midst of statements, for another tenant."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Text,
    Uuid,
    bindparam,
    event,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from tests.fixtures.attacks import (
    Attack,
    attacked_world,
    check_confined,
    check_refused,
    partial,
    unwalled_engine,
)
from tests.fixtures.worlds import A, B, World, bound

from assay.models import Test, User
from tenantry import CrossTenantError, UnfilterableStatementError, set_tenant, tenancy
from tenantry.dialects import FilteringContext
from tenantry.filters import statement_tenant
from tenantry.testing import Server

tests: Any = Test.__table__
users: Any = User.__table__


class Copied(DeclarativeBase):
    """Models of the same tables, apart from the application's."""


class Peer(Copied):
    """A test, compared with a test of another Session by a relationship."""

    __tablename__ = "tests"

    organization_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    prompt: Mapped[str]
    category: Mapped[str | None]
    same: Mapped["Peer"] = relationship(
        primaryjoin="foreign(Peer.prompt) == remote(Peer.prompt)", viewonly=True, uselist=False
    )


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


def read_users_as_b(engine: Engine) -> None:
    """Execute a statement for B, on a connection of its own."""
    with bound(engine, B) as session:
        assert session.scalars(select(User.name)).all() == ["secret of b"]


def by_callable(connection: Connection) -> object:
    """Compute a parameter by a query for B."""

    def compute() -> str:
        read_users_as_b(connection.engine)
        return "nothing"

    parameter: Any = bindparam("p", callable_=compute)
    return [
        connection.execute(select(tests.c.prompt).where(tests.c.prompt != parameter)).all(),
        connection.execute(update(tests).values(category="x").where(tests.c.prompt != parameter)),
        connection.execute(select(tests.c.prompt).where(tests.c.prompt != parameter)).all(),
    ]


def by_expired_object(connection: Connection) -> object:
    """Compare with an expired object of B's Session, which is refreshed for the parameter."""
    with bound(connection.engine, B) as other, bound(connection.engine, A) as session:
        peer = other.scalars(select(Peer)).one()
        other.commit()
        statement = update(Peer).values(category="x").where(Peer.same == peer)
        session.execute(statement.execution_options(synchronize_session=False))
        session.commit()
    return connection.execute(select(tests.c.prompt)).all()


def by_default(connection: Connection) -> object:
    """Compute a column's default by a query for B."""

    def compute() -> str:
        read_users_as_b(connection.engine)
        return "computed"

    table = partial(
        "test_sets",
        Column("organization_id", Uuid),
        Column("name", Text),
        Column("description", Text, default=compute),
    )
    connection.execute(insert(table).values(name=f"a{uuid.uuid4()}"))
    return connection.execute(select(table)).all()


def by_listener(connection: Connection) -> object:
    """Have a listener of the application's look something up for B before each statement."""
    engine = connection.engine

    def look_up(executing: Connection, *_: Any) -> None:
        if not executing.info.get("looking"):
            with engine.connect() as own:
                own.info["looking"] = True
                set_tenant(own, B)
                assert own.execute(select(users.c.name)).scalars().all() == ["secret of b"]
                del own.info["looking"]

    event.listen(engine, "before_execute", look_up)
    try:
        return [
            connection.execute(select(tests.c.prompt)).all(),
            connection.execute(update(tests).values(category="x")).rowcount,
        ]
    finally:
        event.remove(engine, "before_execute", look_up)


NESTED = (by_callable, by_expired_object, by_default, by_listener)


@pytest.mark.parametrize("attack", NESTED)
def test_nested_statement_does_not_change_the_outers_tenant(
    world: World, engine: Engine, attack: Attack
) -> None:
    """A statement for B in the midst of A's reads B's rows, and A's goes on for A."""
    assert "secret of a" in check_confined(world.open, engine, attack)


def test_failed_nested_statement_does_not_change_the_outers_tenant(
    world: World, engine: Engine
) -> None:
    """A nested statement that is refused, and whose error is swallowed, lets nothing through."""

    def attack(connection: Connection) -> object:
        def compute() -> str:
            with bound(connection.engine, B) as session:
                try:
                    session.execute(select(func.query_to_xml("select 1", True, False, "")))
                except UnfilterableStatementError:
                    return "nothing"
            raise AssertionError("the statement was not refused")

        statement = select(tests.c.prompt).where(
            tests.c.prompt != bindparam("p", callable_=compute)
        )
        return connection.execute(statement).all()

    check_confined(world.open, engine, attack)


def test_without_the_restored_tenant_a_nested_statement_disturbs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting the outer's tenant back is what holds: else A's statement fails, or reads B's."""

    def forget(_: type, dialect: Any, connection: Connection, *args: Any, **options: Any) -> object:
        statement_tenant.set(dialect.tenancy.statement_tenant(connection))
        init: Any = super(FilteringContext, dialect.execution_ctx_cls)._init_compiled
        return init(dialect, connection, *args, **options)

    monkeypatch.setattr(FilteringContext, "_init_compiled", classmethod(forget))
    with unwalled_engine(world) as engine:
        check_refused(world.open, engine, by_callable, CrossTenantError)
        monkeypatch.setattr(tenancy, "check_statement", lambda *_: None)
        with pytest.raises(AssertionError):
            check_confined(world.open, engine, by_callable)

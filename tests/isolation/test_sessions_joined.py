"""Sessions that share a Connection, spread over engines, or join a transaction of somebody else."""

from typing import Literal, get_args

import pytest
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.orm import Session
from tests.fixtures import session_checks
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    A,
    B,
    C,
    Wall,
    World,
    names_of,
    seen,
)

from assay.models import Organization, TestSet
from tenantry import (
    ConfigurationError,
    MissingTenantError,
    TenantSwitchError,
    clear_tenant,
    get_tenant,
    set_tenant,
)

JoinMode = Literal["conditional_savepoint", "rollback_only", "control_fully", "create_savepoint"]


@pytest.fixture(params=get_args(JoinMode))
def join_mode(request: pytest.FixtureRequest) -> JoinMode:
    """Return each way in which a Session joins a transaction that was open before it."""
    join_mode: JoinMode = request.param
    return join_mode


def joined(connection: Connection, join_mode: JoinMode, tenant: object = None) -> Session:
    """Return a Session on the Connection, for the tenant if there is one."""
    session = Session(connection, join_transaction_mode=join_mode)
    if tenant is not None:
        set_tenant(session, tenant)
    return session


@pytest.mark.parametrize("end", ["commit", "rollback", "close"])
def test_sessions_in_turn_on_a_connection(engine: Engine, join_mode: JoinMode, end: str) -> None:
    """Sessions that follow one another on one Connection see their own tenant's rows each."""
    with engine.connect() as connection:
        for letter, tenant in (("a", A), ("b", B), ("c", C)):
            session = joined(connection, join_mode, tenant)
            assert seen(session) == names_of(letter)
            getattr(session, end)()
            assert seen(session) == names_of(letter)
            session.close()
        connection.rollback()
        assert seen(connection) == set()


@pytest.mark.parametrize("end", ["commit", "close"])
def test_sessions_in_turn_in_one_transaction(engine: Engine, join_mode: JoinMode, end: str) -> None:
    """In a transaction that outlives them, Sessions see their own tenant's rows each."""
    with engine.connect() as connection:
        connection.begin()
        for letter, tenant in (("a", A), ("b", B), ("c", C)):
            session = joined(connection, join_mode, tenant)
            assert seen(session) == names_of(letter)
            getattr(session, end)()
            assert seen(session) == names_of(letter)
            session.close()
        with joined(connection, join_mode) as session:
            assert seen(session) == set()


def test_rollback_in_a_shared_transaction_brings_no_earlier_tenant_back(
    engine: Engine, join_mode: JoinMode
) -> None:
    """A Session that rolls back in a transaction that was A's before reads its own rows after."""
    with engine.connect() as connection:
        connection.begin()
        first = joined(connection, join_mode, A)
        assert seen(first) == names_of("a")
        first.commit()
        second = joined(connection, join_mode, B)
        assert seen(second) == names_of("b")
        second.rollback()
        assert seen(second) == names_of("b")
        second.close()
        third = joined(connection, join_mode)
        assert seen(third) == set()
        third.rollback()
        assert seen(third) == set()
        third.close()
        first.close()


def test_two_sessions_at_once_do_not_see_each_other(engine: Engine, join_mode: JoinMode) -> None:
    """Two Sessions that use one Connection by turns are kept apart, or the second is refused."""
    with engine.connect() as connection:
        connection.begin()
        first = joined(connection, join_mode, A)
        second = joined(connection, join_mode, B)
        assert seen(first) == names_of("a")
        try:
            assert seen(second) == names_of("b")
        except TenantSwitchError:
            second.close()
        assert seen(first) == names_of("a")
        first.close()
        second.close()


def test_connection_brings_its_tenant(engine: Engine, join_mode: JoinMode) -> None:
    """A Session without a tenant of its own runs for that of the Connection it is bound to."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        with joined(connection, join_mode) as session:
            assert seen(session) == names_of("a")
            session.commit()
            assert {row.name for row in session.scalars(select(TestSet))} == names_of("a")
            session.rollback()
            assert seen(session) == names_of("a")


def test_connection_of_another_tenant_is_refused(engine: Engine) -> None:
    """A Session for B does not run on a Connection that is A's."""
    session_checks.check_open_transaction_of_another_is_refused(engine)


def test_connection_switched_under_a_session_serves_nothing_from_memory(engine: Engine) -> None:
    """Objects that a Session has of its Connection's last tenant are not served to the next."""
    with engine.connect() as connection:
        set_tenant(connection, A)
        session = Session(connection, expire_on_commit=False)
        kept = session.scalars(select(TestSet)).first()
        assert kept is not None
        session.commit()
        try:
            set_tenant(connection, B)
            assert session.get(TestSet, (A, kept.id)) is None
        except TenantSwitchError:
            pass
        session.close()


def test_connection_cleared_after_the_session(engine: Engine, join_mode: JoinMode) -> None:
    """Once a Session is done with it, its Connection's next transaction is nobody's."""
    with engine.connect() as connection:
        with joined(connection, join_mode, A) as session:
            assert seen(session) == names_of("a")
        connection.rollback()
        assert get_tenant(connection) is None
        assert seen(connection) == set()
        connection.rollback()
        set_tenant(connection, B)
        assert seen(connection) == names_of("b")


def test_session_over_two_engines_is_one_tenants(world: World, wall: Wall) -> None:
    """A Session whose classes live on two engines sees the same tenant on both."""
    with world.engine(wall) as first, world.engine(wall) as second:
        for letter, tenant in (("a", A), ("b", B)):
            with Session(binds={TestSet: first, Organization: second}) as session:
                set_tenant(session, tenant)
                for end in (session.commit, session.rollback, session.close):
                    assert seen(session) == names_of(letter)
                    assert session.scalars(select(Organization.name)).all() == [letter]
                    end()
        with first.connect() as one, second.connect() as two:
            assert seen(one) == seen(two) == set()


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
def test_session_over_two_engines_without_tenant_is_refused(world: World, wall: Wall) -> None:
    """A Session without an engine of its own needs a tenant as any other does."""
    with world.engine(wall) as engine, Session(binds={TestSet: engine}) as session:
        with pytest.raises(MissingTenantError):
            session.scalars(select(TestSet)).all()
        session.add(TestSet(name="nobody's"))
        with pytest.raises(MissingTenantError):
            session.flush()
        session.rollback()


def test_session_with_an_unprotected_engine_among_its_binds_is_refused(world: World) -> None:
    """A tenant cannot be bound where one of the engines would forget it."""
    engine = create_engine(world.walled.app_url)
    with (
        Session(binds={TestSet: engine}) as session,
        pytest.raises(ConfigurationError, match="not protected"),
    ):
        set_tenant(session, A)


def test_two_engines_do_not_mix(world: World) -> None:
    """Two engines of one process, each with its own wall, carry a tenant each."""
    walls = (Wall("database", "session"), Wall("filters", "transaction"))
    with (
        world.engine(walls[0]) as first,
        world.engine(walls[1]) as second,
        Session(first) as one,
        Session(second) as two,
    ):
        set_tenant(one, A)
        set_tenant(two, B)
        for _ in range(2):
            assert seen(one) == names_of("a")
            assert seen(two) == names_of("b")
            one.commit()
            two.rollback()
        clear_tenant(two)
        assert seen(one) == names_of("a")
        assert seen(two.connection()) == set()

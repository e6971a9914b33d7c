"""Several users of one connection, at once or in turn: each sees its own tenant or is refused."""

import contextlib
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, create_engine, select, text
from sqlalchemy.orm import Session, load_only
from tests.fixtures.turns import AdoptedSet
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    A,
    B,
    Wall,
    World,
    bound,
    names_of,
    seen,
    stop_comparing,
)

from assay.models import Organization
from tenantry import (
    ConfigurationError,
    CrossTenantError,
    TenantSwitchError,
    get_tenant,
    protect_engine,
    sessions,
    set_tenant,
    tenancy,
)
from tenantry.binding import Binding

Target = Session | Connection

ROWS: dict[Any, set[str]] = {None: set(), A: names_of("a"), B: names_of("b")}


def sees_or_is_refused(target: Target, letter: str) -> bool:
    """Read twice: this tenant's rows, or an error each time; return whether there were rows."""
    answers: list[bool | None] = []
    for _ in range(2):
        try:
            answers.append(seen(target) == names_of(letter))
        except TenantSwitchError:
            answers.append(None)
    assert answers in ([True, True], [None, None])
    return answers[0] is not None


# Several at once


def check_refused_again(engine: Engine) -> None:
    """What was refused once is refused again: a second try is not let through."""
    with engine.connect() as connection, Session(connection) as first:
        connection.begin()
        set_tenant(first, A)
        assert seen(first) == names_of("a")
        with Session(connection) as second:
            set_tenant(second, B)
            assert not sees_or_is_refused(second, "b")
            assert not sees_or_is_refused(first, "a")
        assert sees_or_is_refused(first, "a")


def check_joined_before_they_are_bound(engine: Engine) -> None:
    """Two Sessions that joined one transaction as nobody cannot become A's and B's in it."""
    with engine.connect() as connection:
        connection.begin()
        with Session(connection) as first, Session(connection) as second:
            first.connection()
            second.connection()
            for session, tenant in ((first, A), (second, B)):
                with contextlib.suppress(TenantSwitchError):
                    set_tenant(session, tenant)
            for session in (first, second):
                tenant_now = get_tenant(session)
                with contextlib.suppress(TenantSwitchError):
                    assert seen(session) == ROWS[tenant_now and tenant_now.organization_id]


def check_connection_is_bound_under_a_session(engine: Engine) -> None:
    """A Connection that a Session of A's is using does not become B's."""
    with engine.connect() as connection:
        connection.begin()
        with Session(connection) as session:
            set_tenant(session, A)
            assert seen(session) == names_of("a")
            with pytest.raises(TenantSwitchError):
                set_tenant(connection, B)
            assert get_tenant(connection) is None
            assert seen(session) == names_of("a")
            assert {row.name for row in session.scalars(select(Organization))} == {"a"}


def check_sessions_own_connection_is_bound(engine: Engine) -> None:
    """The Connection that a Session has of its engine does not become another tenant's."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
        with pytest.raises(TenantSwitchError):
            set_tenant(session.connection(), B)
        assert seen(session) == names_of("a")


def check_session_is_bound_inside_a_connections_transaction(engine: Engine) -> None:
    """A Session that joined B's Connection as nobody does not become A's in its transaction."""
    with engine.connect() as connection:
        set_tenant(connection, B)
        with Session(connection) as session:
            session.connection()
            with pytest.raises(TenantSwitchError):
                set_tenant(session, A)
            assert seen(connection) == names_of("b")
            assert seen(session) == names_of("b")


def check_savepoint_is_rolled_back_under_a_session(engine: Engine) -> None:
    """Rolling a Connection's savepoint back under B's Session brings no tenant of before back."""
    with engine.connect() as connection:
        connection.begin()
        with Session(connection) as earlier:
            set_tenant(earlier, A)
            assert seen(earlier) == names_of("a")
            earlier.commit()
        savepoint = connection.begin_nested()
        with Session(connection, join_transaction_mode="rollback_only") as session:
            set_tenant(session, B)
            assert seen(session) == names_of("b")
            savepoint.rollback()
            with contextlib.suppress(TenantSwitchError):
                assert seen(session) == names_of("b")
        assert seen(connection) == set()


def check_session_is_closed_in_an_outer_transaction(engine: Engine) -> None:
    """A Connection whose Session is closed, and forgotten, sees nothing of its tenant's rows."""
    with engine.connect() as connection:
        connection.begin()
        session = Session(connection)
        set_tenant(session, A)
        assert seen(session) == names_of("a")
        session.commit()
        session.close()
        assert seen(connection) == set()
        del session
        assert get_tenant(connection) is None
        assert seen(connection) == set()


AGREED = (
    check_refused_again,
    check_connection_is_bound_under_a_session,
    check_sessions_own_connection_is_bound,
    check_session_is_bound_inside_a_connections_transaction,
)
COMPARED = (
    check_savepoint_is_rolled_back_under_a_session,
    check_session_is_closed_in_an_outer_transaction,
)


@pytest.mark.parametrize("check", [*AGREED, *COMPARED, check_joined_before_they_are_bound])
def test_users_of_one_connection_are_kept_apart(
    engine: Engine, check: Callable[[Engine], None]
) -> None:
    """Whoever is bound to whom, and in which order, nobody sees another tenant's rows."""
    check(engine)


@pytest.mark.parametrize("check", AGREED)
def test_without_the_agreement_users_see_each_other(
    world: World, monkeypatch: pytest.MonkeyPatch, check: Callable[[Engine], None]
) -> None:
    """That all users agree on the tenant is what holds: without it B is served on A's."""

    def any_of(own: object, users: Iterable[Binding]) -> object:
        return next((user.tenant for user in users if user.tenant), own)

    monkeypatch.setattr(tenancy, "agreed_tenant", any_of)
    with world.engine() as engine, pytest.raises((AssertionError, pytest.fail.Exception)):
        check(engine)


@pytest.mark.parametrize("check", COMPARED)
def test_without_the_comparison_an_earlier_tenant_stays(
    world: World, check: Callable[[Engine], None]
) -> None:
    """Comparing the tenant at each statement is what holds: without it A's rows are read."""
    with world.engine() as engine:
        stop_comparing(engine)
        with pytest.raises(AssertionError):
            check(engine)


# One after the other


def test_info_taken_from_a_session_does_not_disturb_it(engine: Engine) -> None:
    """A Session that took over another's `info` is nobody's, and its end ends nothing else."""
    with bound(engine, A) as parent:
        assert seen(parent) == names_of("a")
        with Session(engine, info=parent.info) as child:
            assert get_tenant(child) is None
            child.begin()
            child.rollback()
        with pytest.raises(TenantSwitchError, match="in a transaction"):
            set_tenant(parent, B)
        assert seen(parent) == names_of("a")


def left_by_a(engine: Engine, load: Callable[[Session], AdoptedSet]) -> AdoptedSet:
    """Return an object that A's Session loaded and left behind."""
    with bound(engine, A, expire_on_commit=False) as session:
        return load(session)


def load_whole(session: Session) -> AdoptedSet:
    """Load a set with its organization."""
    return session.scalars(select(AdoptedSet).where(AdoptedSet.name == "a1")).one()


def load_part(session: Session) -> AdoptedSet:
    """Load a set without its organization."""
    query = select(AdoptedSet).options(load_only(AdoptedSet.name))
    return session.scalars(query.where(AdoptedSet.name == "a1")).one()


def add(session: Session, instance: AdoptedSet) -> AdoptedSet:
    """Attach an object as it is, and return it."""
    session.add(instance)
    return instance


def merge(session: Session, instance: AdoptedSet) -> AdoptedSet:
    """Copy an object as it is, and return the copy, which lives as long as somebody has it."""
    return session.merge(instance, load=False)


@pytest.mark.parametrize("take", [add, merge])
@pytest.mark.parametrize("load", [load_whole, load_part])
def test_object_that_is_not_known_to_be_the_tenants_is_refused(
    engine: Engine,
    load: Callable[[Session], AdoptedSet],
    take: Callable[[Session, AdoptedSet], AdoptedSet],
) -> None:
    """A's row is not taken into B's Session, which would serve it from memory; not even unnamed."""
    check_not_taken(engine, load, take)


def check_not_taken(
    engine: Engine,
    load: Callable[[Session], AdoptedSet],
    take: Callable[[Session, AdoptedSet], AdoptedSet],
) -> None:
    """A's object is refused, and B's Session does not find it afterwards."""
    left = left_by_a(engine, load)
    key = left.id
    with bound(engine, B) as session:
        with contextlib.suppress(CrossTenantError):
            left = take(session, left)
        assert session.get(AdoptedSet, key) is None
        with pytest.raises(CrossTenantError):
            take(session, left)


@pytest.mark.parametrize("take", [add, merge])
def test_without_the_owners_check_another_tenants_row_is_served(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    take: Callable[[Session, AdoptedSet], AdoptedSet],
) -> None:
    """Asking whose an object is is what holds: without it B is served A's row from memory."""
    monkeypatch.setattr(sessions, "check_owner", lambda *_: None)
    with world.engine() as engine, pytest.raises((AssertionError, pytest.fail.Exception)):
        check_not_taken(engine, load_part, take)


@pytest.mark.parametrize(
    ("wall", "isolation_level"),
    # In the other scope AUTOCOMMIT carries no tenant.
    [*((wall, "READ COMMITTED") for wall in DATABASE_WALLS), (DATABASE_WALLS[0], "AUTOCOMMIT")],
    ids=str,
)
def test_what_the_server_told_one_user_is_not_read_by_the_next(
    world: World, wall: Wall, isolation_level: str
) -> None:
    """Notices and notifications, which the driver keeps, are gone with the user they were for."""
    with world.engine(wall, isolation_level=isolation_level) as engine:
        for round_ in (1, 2):
            with engine.connect() as connection:
                driver: Any = connection.connection.dbapi_connection
                assert (driver.notices, driver.notifies) == ([], [])
                connection.execute(text("listen told"))
                connection.execute(text("notify told, 'row of a'"))
                connection.commit()
                with driver.cursor() as cursor:
                    # Notices of a statement of its own SQLAlchemy logs and takes away.
                    cursor.execute("do $$ begin raise notice 'row of a'; end $$")
                driver.commit()
                driver.poll()
                assert (len(driver.notices), len(driver.notifies)) == (1, 1), round_


@pytest.mark.parametrize("kind", [Session, Engine])
def test_engine_made_of_another_before_its_protection_takes_no_tenant(
    world: World, kind: type
) -> None:
    """An engine with options shares the pool, but not the protection that came after it."""
    engine = create_engine(world.walled.app_url)
    early = engine.execution_options(isolation_level="READ COMMITTED")
    protect_engine(engine)
    try:
        with (
            Session(early) if kind is Session else early.connect() as target,
            pytest.raises(ConfigurationError, match="before anything else is made from it"),
        ):
            set_tenant(target, A)
        late = engine.execution_options(isolation_level="READ COMMITTED")
        with bound(late, A) as session:
            assert seen(session) == names_of("a")
        with early.connect() as connection:
            assert seen(connection) == set()
    finally:
        engine.dispose()

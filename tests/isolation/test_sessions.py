"""A Session on a pool of one connection sees its own tenant, whatever the last one did."""

import uuid

import pytest
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from tests.fixtures import session_checks
from tests.fixtures.worlds import WALLS, A, B, C, World, bound, names_of, seen

from assay.models import TestSet
from tenantry import (
    InvalidTenantError,
    TenantSwitchError,
    clear_tenant,
    get_tenant,
    set_tenant,
    tenant_scope,
)


def test_tenant_stays_after_commit(engine: Engine) -> None:
    """Each transaction after a commit runs for the same tenant."""
    with bound(engine, A) as session:
        for _ in range(3):
            assert seen(session) == names_of("a")
            session.commit()


def test_rollback_brings_no_earlier_tenant_back(engine: Engine) -> None:
    """The sequence that leaks where the tenant is only set once per request does not leak."""
    session_checks.check_leak_sequence(engine)


def test_next_session_without_tenant_sees_nothing(engine: Engine) -> None:
    """A connection that comes back from the pool brings no tenant along."""
    session_checks.check_next_user_sees_nothing(engine)


def test_reads_are_confined(engine: Engine) -> None:
    """ORM and Core SELECTs return the bound tenant's rows."""
    session_checks.check_orm_reads_are_confined(engine)


def test_writes_are_confined(engine: Engine) -> None:
    """Bulk statements change the bound tenant's rows and file none under another."""
    session_checks.check_orm_writes_are_confined(engine)


def test_tenant_bound_in_open_transaction_counts_at_once(engine: Engine) -> None:
    """`set_tenant` after the transaction has begun is in time, and outlasts a rollback."""
    session_checks.check_late_tenant_counts_at_once(engine)


def test_every_order_of_ends_keeps_tenants_apart(engine: Engine) -> None:
    """Whether the last Session committed, rolled back or was just closed makes no difference."""
    for end in ("commit", "rollback", "close", "commit rollback", "rollback commit"):
        for letter, tenant in (("a", A), ("b", B), ("c", C)):
            with bound(engine, tenant) as session:
                for act in end.split():
                    assert seen(session) == names_of(letter)
                    getattr(session, act)()
            with engine.connect() as connection:
                assert seen(connection) == set()


def test_session_that_failed_leaves_no_tenant(engine: Engine) -> None:
    """A transaction that the server aborted is rolled back, and the next one is as bound."""
    with bound(engine, A) as session:
        session.add(TestSet(name=" "))
        with pytest.raises(Exception, match="ck_test_sets_name"):
            session.flush()
        session.rollback()
        assert seen(session) == names_of("a")
    with bound(engine, B) as session:
        assert seen(session) == names_of("b")


def test_savepoints_keep_the_tenant(engine: Engine) -> None:
    """Rolling back to a savepoint and releasing one leave the tenant as it is."""
    with bound(engine, A) as session:
        nested = session.begin_nested()
        assert seen(session) == names_of("a")
        nested.rollback()
        assert seen(session) == names_of("a")
        with session.begin_nested():
            assert seen(session) == names_of("a")
            with session.begin_nested() as inner:
                assert seen(session) == names_of("a")
                inner.rollback()
            assert seen(session) == names_of("a")
        assert seen(session) == names_of("a")
        session.commit()
        assert seen(session) == names_of("a")


def test_savepoint_opened_first_keeps_the_tenant(engine: Engine) -> None:
    """A tenant bound before a savepoint that begins the transaction outlasts its rollback."""
    with Session(engine) as session:
        nested = session.begin_nested()
        set_tenant(session, A)
        assert seen(session) == names_of("a")
        nested.rollback()
        assert seen(session) == names_of("a")


def test_late_tenant_outlasts_savepoints(engine: Engine) -> None:
    """A tenant bound in an open transaction is still there after savepoints opened later."""
    with Session(engine) as session:
        session.connection()
        set_tenant(session, A)
        for _ in range(2):
            nested = session.begin_nested()
            assert seen(session) == names_of("a")
            nested.rollback()
            assert seen(session) == names_of("a")


def test_savepoint_in_sql_text_keeps_the_tenant(world: World) -> None:
    """ROLLBACK TO and RELEASE written by hand leave the tenant as it is."""
    for wall in WALLS:
        if not wall.text_allowed:
            continue
        with world.engine(wall) as engine, bound(engine, A) as session:
            session.execute(text("savepoint one"))
            assert seen(session) == names_of("a")
            session.execute(text("rollback to savepoint one"))
            assert seen(session) == names_of("a")
            session.execute(text("release savepoint one"))
            assert seen(session) == names_of("a")


def test_tenant_cannot_be_bound_inside_a_savepoint(engine: Engine) -> None:
    """Binding in a savepoint is refused, since rolling back to it would undo it."""
    with Session(engine) as session:
        session.connection()
        with session.begin_nested():
            session.connection()
            with pytest.raises(TenantSwitchError, match="savepoint"):
                set_tenant(session, A)
        assert get_tenant(session) is None
        assert seen(session) == set()


def test_rebinding_the_same_tenant_is_allowed_anywhere(engine: Engine) -> None:
    """Binding the tenant that is bound already changes nothing, even in a savepoint."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
        with session.begin_nested():
            set_tenant(session, str(A))
        assert seen(session) == names_of("a")


def test_switch_in_open_transaction_is_refused(engine: Engine) -> None:
    """A Session in a transaction for A cannot become B's, nor nobody's."""
    session_checks.check_switch_in_transaction_is_refused(engine)


def test_switch_with_loaded_objects_is_refused(engine: Engine) -> None:
    """Objects in memory would be served to the next tenant, so the switch is refused."""
    with bound(engine, A) as session:
        kept = session.scalars(select(TestSet)).all()
        session.commit()
        with pytest.raises(TenantSwitchError, match="holds objects"):
            set_tenant(session, B)
        session.expunge_all()
        set_tenant(session, B)
        assert seen(session) == names_of("b")
        assert len(kept) == len(names_of("a"))


def test_switch_with_pending_objects_is_refused(engine: Engine) -> None:
    """Objects that wait to be written would be filed under the next tenant."""
    with bound(engine, A) as session:
        session.add(TestSet(name="pending"))
        with pytest.raises(TenantSwitchError, match="holds objects"):
            set_tenant(session, B)
        session.expunge_all()


def test_closed_session_may_serve_another_tenant(engine: Engine) -> None:
    """After close() nothing of the first tenant is left, so a second one may be bound."""
    session = bound(engine, A)
    assert len(session.scalars(select(TestSet)).all()) == len(names_of("a"))
    session.close()
    set_tenant(session, B)
    assert seen(session) == names_of("b")
    session.close()
    clear_tenant(session)
    assert seen(session) == set()
    session.close()


def test_other_user_of_the_organization_is_another_tenant(engine: Engine) -> None:
    """The user belongs to the tenant: switching it in mid-transaction is refused as well."""
    first, second = uuid.uuid4(), uuid.uuid4()
    with Session(engine) as session:
        tenant = set_tenant(session, A, first)
        assert (tenant.organization_id, tenant.user_id) == (A, first)
        assert seen(session) == names_of("a")
        with pytest.raises(TenantSwitchError):
            set_tenant(session, A, second)


def test_get_tenant_tells_what_is_bound(engine: Engine) -> None:
    """`get_tenant` names the bound tenant, and None before and after."""
    with Session(engine) as session:
        assert get_tenant(session) is None
        tenant = set_tenant(session, A)
        assert get_tenant(session) == tenant
        session.commit()
        assert get_tenant(session) == tenant
        clear_tenant(session)
        assert get_tenant(session) is None


def test_scoped_session_is_bound_like_its_session(engine: Engine) -> None:
    """`set_tenant` on a scoped_session binds the Session of this thread, until it is removed."""
    registry = scoped_session(sessionmaker(engine))
    set_tenant(registry, A)
    assert get_tenant(registry) == get_tenant(registry())
    assert seen(registry()) == names_of("a")
    registry.remove()
    assert get_tenant(registry) is None
    assert seen(registry()) == set()
    set_tenant(registry, B)
    registry.remove()


def test_shared_session_info_does_not_share_the_tenant(engine: Engine) -> None:
    """A sessionmaker whose `info` was taken from a bound Session makes unbound ones."""
    with bound(engine, A) as session:
        makers = sessionmaker(engine, info=session.info)
    with makers() as other:
        set_tenant(other, B)
        assert seen(other) == names_of("b")


def test_tenant_scope_commits(engine: Engine) -> None:
    """`tenant_scope` runs for its tenant and keeps what was written."""
    makers = sessionmaker(engine)
    with tenant_scope(C, sessions=makers) as session:
        session.add(TestSet(name="c-new"))
    with tenant_scope(C, sessions=makers) as session:
        assert seen(session) == names_of("c") | {"c-new"}
        session.delete(session.scalars(select(TestSet).filter_by(name="c-new")).one())
    with tenant_scope(A, sessions=makers) as session:
        assert seen(session) == names_of("a")


def test_tenant_scope_rolls_back(engine: Engine) -> None:
    """An exception in `tenant_scope` undoes the work and is passed on."""
    makers = sessionmaker(engine)

    def work() -> None:
        with tenant_scope(C, sessions=makers) as session:
            session.add(TestSet(name="c-lost"))
            session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        work()
    with tenant_scope(C, sessions=makers) as session:
        assert seen(session) == names_of("c")


def test_tenant_scope_refuses_a_malformed_id_before_it_connects(engine: Engine) -> None:
    """With an id that is none, no connection is made."""
    with pytest.raises(InvalidTenantError), tenant_scope("nobody", sessions=sessionmaker(engine)):
        pytest.fail("the scope was entered")
    assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]

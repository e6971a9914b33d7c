"""What is no tenant, or another one, is refused before anything reaches the server."""

import uuid

import pytest
from sqlalchemy import Engine, delete, event, func, insert, select, update
from sqlalchemy.orm import Session, selectinload
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    WALLS,
    A,
    B,
    World,
    bound,
    names_of,
    seen,
)

from assay.models import Organization, Test, TestConfiguration, TestSet, User
from tenantry import (
    CrossTenantError,
    InvalidTenantError,
    MissingTenantError,
    Tenant,
    UnknownTenantError,
    get_tenant,
    set_tenant,
)


class Liar(uuid.UUID):
    """A UUID that prints something else than it is."""

    def __str__(self) -> str:
        return f"{B}"

    def __repr__(self) -> str:
        return f"{B}'; select 1; --"


class Evasive(str):
    """Text that is a UUID to look at and something else to format."""

    __slots__ = ()

    def __str__(self) -> str:
        return f"{B}"


NO_IDS = (
    "",
    " ",
    "nobody",
    "0" * 31,
    "0" * 33,
    f"{A}'; select set_config('app.current_organization', '{B}', false); --",
    f"{A}\x00",
    "null",
    None,
    0,
    1.5,
    True,
    b"0" * 16,
    str(A).encode(),
    [A],
    {"organization_id": A},
    object(),
    uuid.UUID,
)


@pytest.mark.parametrize("wall", DATABASE_WALLS, ids=str)
@pytest.mark.parametrize("wrong", NO_IDS, ids=lambda wrong: repr(wrong)[:20])
def test_what_is_no_id_is_refused_and_not_sent(engine: Engine, wrong: object) -> None:
    """Neither as organization nor as user does a malformed id reach the server or the Session."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    with Session(engine) as session, engine.connect() as connection:
        event.listen(engine, "before_cursor_execute", note)
        for target in (session, connection):
            with pytest.raises(InvalidTenantError):
                set_tenant(target, wrong)
            if wrong is not None:
                with pytest.raises(InvalidTenantError):
                    set_tenant(target, A, wrong)
            assert get_tenant(target) is None
        assert not connection.in_transaction()
        assert not session.in_transaction()
    assert sent == []


def test_refused_id_leaves_the_bound_tenant(engine: Engine) -> None:
    """A malformed id in mid-transaction changes nothing about whose transaction it is."""
    with bound(engine, A) as session:
        assert seen(session) == names_of("a")
        with pytest.raises(InvalidTenantError):
            set_tenant(session, "nobody")
        assert seen(session) == names_of("a")
        session.rollback()
        assert seen(session) == names_of("a")


def test_uuid_that_prints_another_is_taken_by_its_value(engine: Engine) -> None:
    """A subclass with its own `__str__` is bound as the UUID that it is."""
    with Session(engine) as session:
        assert set_tenant(session, Liar(int=A.int)) == Tenant(A)
        assert seen(session) == names_of("a")


def test_text_that_prints_another_is_taken_by_its_value(engine: Engine) -> None:
    """A subclass of str cannot pass validation as one id and be sent as another."""
    with Session(engine) as session:
        assert set_tenant(session, Evasive(A)).organization_id == A
        assert seen(session) == names_of("a")


@pytest.mark.parametrize("written", [str(A).upper(), A.hex, f"{{{A}}}", A.urn])
def test_every_spelling_of_a_uuid_is_one_tenant(world: World, written: str) -> None:
    """However an id is written, it is the same tenant as the UUID itself."""
    with world.engine() as engine, Session(engine) as session:
        assert set_tenant(session, written) == Tenant(A)
        assert seen(session) == names_of("a")


def test_unknown_tenant_sees_nothing(engine: Engine) -> None:
    """An organization that does not exist reads nothing, and a row filed under it says why."""
    with bound(engine, uuid.uuid4()) as session:
        assert seen(session) == set()
        session.add(TestSet(name="stray"))
        with pytest.raises(UnknownTenantError, match="organizations"):
            session.flush()
        session.rollback()
        with pytest.raises(UnknownTenantError, match="organizations"):
            session.execute(insert(TestSet), [{"name": "stray"}])
        session.rollback()
    with engine.connect() as connection:
        set_tenant(connection, uuid.uuid4())
        with pytest.raises(UnknownTenantError, match="organizations"):
            connection.execute(insert(TestSet).values(name="stray"))


def test_reads_without_tenant_are_refused(engine: Engine) -> None:
    """Each way of the ORM to read a tenant table says that the tenant is missing."""
    inner = select(TestSet.id).scalar_subquery()
    with Session(engine) as session:
        for statement in (
            select(TestSet),
            select(TestSet.name),
            select(func.count()).select_from(TestSet),
            select(Organization).join(User, User.organization_id == Organization.id),
            select(TestSet).options(selectinload(TestSet.tests)),
            select(TestSet).from_statement(select(TestSet)),
            select(inner.label("one")).select_from(User),
            select(TestSet).where(select(Test.id).exists()),
            select(select(TestSet).subquery()),
            select(select(TestSet).cte()),
        ):
            with pytest.raises(MissingTenantError):
                session.execute(statement).all()
        with pytest.raises(MissingTenantError):
            session.get(TestSet, (A, uuid.uuid4()))
        with pytest.raises(MissingTenantError):
            session.query(TestSet).count()


def test_bulk_writes_without_tenant_are_refused(engine: Engine) -> None:
    """UPDATE, DELETE and INSERT of the ORM say that the tenant is missing."""
    with Session(engine) as session:
        for statement in (
            update(TestSet).values(description="mine"),
            delete(TestSet),
            insert(TestSet).values(name="nobody's"),
        ):
            with pytest.raises(MissingTenantError):
                session.execute(statement)
        with pytest.raises(MissingTenantError):
            session.execute(insert(TestSet), [{"name": "nobody's"}])


def test_flush_without_tenant_is_refused(engine: Engine) -> None:
    """New, changed and deleted objects are not written by a Session without a tenant."""
    with bound(engine, A) as session:
        kept = session.scalars(select(TestSet)).all()
        session.expunge_all()
    with Session(engine) as session:
        session.add(TestSet(name="nobody's"))
        with pytest.raises(MissingTenantError):
            session.flush()
    with Session(engine) as session:
        session.add(kept[0])
        kept[0].description = "mine"
        with pytest.raises(MissingTenantError):
            session.flush()
    with Session(engine) as session:
        session.delete(kept[1])
        with pytest.raises(MissingTenantError):
            session.flush()


def test_lazy_load_without_tenant_is_refused(engine: Engine) -> None:
    """An object that ended up in a Session without a tenant loads nothing more."""
    with bound(engine, A) as session:
        loaded = session.scalars(select(TestSet)).first()
        assert loaded is not None
        session.expunge_all()
    with Session(engine) as session:
        session.add(loaded)
        with pytest.raises(MissingTenantError):
            _ = loaded.tests
        session.expire(loaded)
        with pytest.raises(MissingTenantError):
            _ = loaded.name
        with pytest.raises(MissingTenantError):
            session.refresh(loaded)


def test_object_of_another_tenant_cannot_join(engine: Engine) -> None:
    """What was loaded for A is neither added to nor merged into a Session of B."""
    with bound(engine, A) as session:
        loaded = session.scalars(select(TestSet)).first()
        assert loaded is not None
        session.expunge_all()
    with bound(engine, B) as session:
        with pytest.raises(CrossTenantError):
            session.add(loaded)
        with pytest.raises(CrossTenantError):
            session.delete(loaded)
        session.merge(loaded)
        with pytest.raises(CrossTenantError):
            session.flush()
        session.rollback()
        assert seen(session) == names_of("b")


@pytest.mark.parametrize("wall", WALLS[:1], ids=str)
def test_object_of_another_tenant_cannot_be_merged_without_loading(engine: Engine) -> None:
    """`merge(load=False)` does not put A's object into the identity map of a Session of B."""
    with bound(engine, A) as session:
        loaded = session.scalars(select(TestSet)).first()
        assert loaded is not None
        identity = (A, loaded.id)
        session.expunge_all()
    with bound(engine, B) as session:
        with pytest.raises(CrossTenantError):
            session.merge(loaded, load=False)
        assert session.get(TestSet, identity) is None


@pytest.mark.parametrize("wall", WALLS[:1], ids=str)
def test_expired_object_of_another_tenant_cannot_join(engine: Engine) -> None:
    """An object of A whose attributes are expired is known by its key."""
    with bound(engine, A) as session:
        loaded = session.scalars(select(TestSet)).first()
        assert loaded is not None
        session.commit()
    with bound(engine, B) as session, pytest.raises(CrossTenantError):
        session.add(loaded)


def test_row_for_another_tenant_is_refused(engine: Engine) -> None:
    """New objects that name another organization are not written, nor are moved ones."""
    with bound(engine, A) as session:
        with pytest.raises(CrossTenantError):
            session.add(TestSet(organization_id=B, name="planted"))
        session.rollback()
        with pytest.raises(CrossTenantError):
            session.add(Organization(id=B, name="planted"))
        session.rollback()
        moved = session.scalars(select(TestSet)).first()
        assert moved is not None
        moved.organization_id = B
        with pytest.raises(CrossTenantError):
            session.flush()
        session.rollback()
        late = TestSet(name="late")
        session.add(late)
        late.organization_id = B
        with pytest.raises(CrossTenantError):
            session.flush()


def test_tenant_is_not_bound_over_objects_of_another(engine: Engine) -> None:
    """A Session without a tenant that holds A's object does not become B's."""
    with bound(engine, A) as session:
        loaded = session.scalars(select(TestSet)).first()
        assert loaded is not None
        session.expunge_all()
    with Session(engine) as session:
        session.add(loaded)
        with pytest.raises(CrossTenantError):
            set_tenant(session, B)
        set_tenant(session, A)
        assert seen(session) == names_of("a")


def test_foreign_key_into_another_tenant_is_refused(engine: Engine) -> None:
    """A reference to another tenant's row finds none: the key holds the tenant too."""
    with bound(engine, B) as session:
        foreign = session.scalars(select(TestSet.id)).first()
    with bound(engine, A) as session:
        session.add(TestConfiguration(name="probe", test_set_id=foreign, endpoint_id=uuid.uuid4()))
        with pytest.raises(Exception, match="test_set_id"):
            session.flush()

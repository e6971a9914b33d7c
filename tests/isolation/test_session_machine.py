"""Whatever a program does with one pooled connection, it sees its own tenant's rows and no other.

Hypothesis writes the programs. The model knows which rows each tenant has committed and which are
pending in the open transaction; every read must return exactly these.
"""

import contextlib
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session
from tests.fixtures.drivers import wire_of
from tests.fixtures.worlds import (
    DATABASE_WALLS,
    DRIVER_WALLS,
    TENANTS,
    WALLS,
    Wall,
    World,
    cursor_of,
    names_of,
    new_world,
    seen,
)

from assay.models import TestSet
from tenantry import TenantSwitchError, clear_tenant, get_tenant, set_tenant
from tenantry.database import Tenancy
from tenantry.drivers.begun import WithBegin
from tenantry.testing import Server
from tenantry.ways import Prefixed, Separate

NAMES = text("select name from test_sets")
TAMPER = text("select set_config('app.current_organization', :value, false)")

PARTS: dict[str, list[tuple[type, str, str | None]]] = {
    "reset": [(Tenancy, "on_reset", None)],
    "announcement": [(Separate, "announce", None), (Prefixed, "announce", None)],
    "context": [(WithBegin, "opening", "select 1")],
}

tenants = st.sampled_from([*TENANTS.values(), None])


class SessionMachine(RuleBasedStateMachine):
    """A pool of one connection, the Sessions and the Connection that use it by turns."""

    def __init__(self, world: World, wall: Wall) -> None:
        """Start with nobody using the connection."""
        super().__init__()
        self.world = world
        self.text_allowed = wall.text_allowed
        self.local = wall.scope == "transaction"
        self.stack = contextlib.ExitStack()
        self.engine = self.stack.enter_context(world.engine(wall))
        self.committed = {tenant: names_of(letter) for letter, tenant in TENANTS.items()}
        self.user: Session | Connection | None = None
        self.parked: list[Session] = []
        self.savepoints: list[Any] = []
        self.pending: list[set[str]] = [set()]
        self.tampered = False
        self.count = 0
        self.kills = 0

    def teardown(self) -> None:
        """Leave the databases as they were."""
        for session in self.parked:
            session.close()
        if self.user is not None:
            self.user.close()
        self.stack.close()
        for database in (self.world.walled, self.world.open):
            with cursor_of(database.superuser_url) as cursor:
                cursor.execute("delete from test_sets where name like 'new %'")

    # The model

    @property
    def tenant(self) -> uuid.UUID | None:
        """The organization that the current user of the connection is bound to."""
        bound = None if self.user is None else get_tenant(self.user)
        return bound.organization_id if bound is not None else None  # type: ignore[return-value]

    def visible(self) -> set[str]:
        """Return what the current user must see."""
        if self.tenant is None:
            return set()
        return self.committed[self.tenant].union(*self.pending)

    def ended(self, *, committed: bool) -> None:
        """Note that the transaction is over."""
        if committed and self.tenant is not None:
            self.committed[self.tenant] |= set().union(*self.pending)
        self.pending = [set()]
        self.savepoints = []

    def busy(self) -> bool:
        return self.user is not None

    def idle(self) -> bool:
        return self.user is None

    def writable(self) -> bool:
        return self.tenant is not None

    # Who uses the connection

    @precondition(idle)
    @rule(tenant=tenants, join=st.booleans())
    def open_session(self, tenant: uuid.UUID | None, join: bool) -> None:
        """Begin to work with a new Session."""
        self.user = Session(self.engine, expire_on_commit=join)
        if tenant is not None:
            set_tenant(self.user, tenant)

    @precondition(lambda self: self.idle() and self.parked)
    @rule()
    def resume_session(self) -> None:
        """Go on with a Session that was put aside between two transactions."""
        self.user = self.parked.pop(0)

    @precondition(idle)
    @rule(tenant=tenants)
    def open_connection(self, tenant: uuid.UUID | None) -> None:
        """Begin to work with a Connection."""
        self.user = self.engine.connect()
        if tenant is not None:
            set_tenant(self.user, tenant)

    @precondition(busy)
    @rule(park=st.booleans(), commit=st.booleans())
    def leave(self, park: bool, commit: bool) -> None:
        """End the transaction, and close the user or put it aside."""
        assert self.user is not None
        if commit:
            self.user.commit()
        elif park:
            self.user.rollback()
        self.ended(committed=commit)
        if isinstance(self.user, Session) and park and len(self.parked) < 3:
            self.parked.append(self.user)
        else:
            self.user.close()
        self.user = None

    @precondition(busy)
    @rule(tenant=tenants)
    def rebind(self, tenant: uuid.UUID | None) -> None:
        """Bind another tenant, or none, wherever the layer lets it happen."""
        assert self.user is not None
        before = self.tenant
        if tenant == before:
            return
        wrote = bool(set().union(*self.pending))
        try:
            if tenant is None:
                clear_tenant(self.user)
            else:
                set_tenant(self.user, tenant)
        except TenantSwitchError:
            assert self.tenant == before
        else:
            assert self.tenant == tenant
            assert not wrote

    # What it does

    @precondition(busy)
    @rule()
    def read(self) -> None:
        """Read with the ORM or with Core."""
        assert self.user is not None
        assert seen(self.user) == self.visible()

    @precondition(lambda self: self.busy() and self.text_allowed)
    @rule()
    def read_text(self) -> None:
        """Read with SQL text, which only the database confines."""
        assert self.user is not None
        assert set(self.user.execute(NAMES).scalars()) == self.visible()

    @precondition(writable)
    @rule(core=st.booleans())
    def write(self, core: bool) -> None:
        """Write a row of the tenant's."""
        assert self.user is not None
        self.count += 1
        name = f"new {self.count}"
        if isinstance(self.user, Session) and not core:
            self.user.add(TestSet(name=name))
            self.user.flush()
        else:
            self.user.execute(insert(TestSet), [{"name": name}])
        self.pending[-1].add(name)

    @precondition(lambda self: self.writable() and self.text_allowed)
    @rule()
    def write_text(self) -> None:
        """Write a row of the tenant's with SQL text."""
        assert self.user is not None
        self.count += 1
        name = f"new {self.count}"
        self.user.execute(text("insert into test_sets (name) values (:name)"), {"name": name})
        self.pending[-1].add(name)

    @precondition(lambda self: self.busy() and len(self.savepoints) < 3)
    @rule()
    def savepoint(self) -> None:
        """Open a savepoint."""
        assert self.user is not None
        self.savepoints.append(self.user.begin_nested())
        self.pending.append(set())

    @precondition(lambda self: self.savepoints)
    @rule(release=st.booleans())
    def end_savepoint(self, release: bool) -> None:
        """Release the innermost savepoint, or roll back to it."""
        nested, names = self.savepoints.pop(), self.pending.pop()
        if release:
            nested.commit()
            self.pending[-1] |= names
        else:
            nested.rollback()

    @precondition(busy)
    @rule(commit=st.booleans())
    def end(self, commit: bool) -> None:
        """End the transaction, and stay."""
        assert self.user is not None
        if commit:
            self.user.commit()
        else:
            self.user.rollback()
        self.ended(committed=commit)

    # What goes wrong

    @precondition(lambda self: self.busy() and self.text_allowed)
    @rule(tenant=tenants, stay=st.booleans())
    def tamper(self, tenant: uuid.UUID | None, stay: bool) -> None:
        """Leave another tenant's setting behind with `set_config`, and commit."""
        assert self.user is not None
        self.user.execute(TAMPER, {"value": "" if tenant is None else str(tenant)})
        self.user.commit()
        self.ended(committed=True)
        self.tampered = True
        if not stay:
            self.user.close()
            self.user = None

    @precondition(lambda self: self.idle() and self.text_allowed)
    @rule(tenant=tenants)
    def raw(self, tenant: uuid.UUID | None) -> None:
        """Read through a raw connection, which nobody's tenant may reach, and tamper with it."""
        # With scope 'transaction' a direct connection is not cleared on its way to the pool:
        # test_pool.py has that as an expected failure.
        with contextlib.closing(self.engine.raw_connection()) as connection:
            cursor = connection.cursor()
            if not (self.local and self.tampered):
                cursor.execute(NAMES.text)
                assert cursor.fetchall() == []
            if not self.local and tenant is not None:
                cursor.execute(f"select set_config('app.current_organization', '{tenant}', false)")
                connection.commit()

    @precondition(lambda self: self.kills < 2)
    @rule()
    def kill(self) -> None:
        """Cut the connection; the work is lost, and the next transaction is as bound."""
        self.kills += 1
        user = self.user if self.user is not None else self.engine.connect()
        connection = user.connection() if isinstance(user, Session) else user
        if not connection.in_transaction():
            # test_faults.py has a backend that is missed at begin as an expected failure.
            connection.begin()
        with wire_of(connection) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        with pytest.raises(DBAPIError):
            touch(connection)
        user.rollback()
        self.ended(committed=False)
        self.tampered = False
        if self.user is None:
            user.close()


def touch(connection: Connection) -> None:
    """Ask the server something that needs no tenant."""
    connection.execute(select(1))


@pytest.fixture(scope="module")
def world(tenantry_server: Server, tenantry_template: str) -> Iterator[World]:
    """Return the rows that the programs begin with."""
    with new_world(tenantry_server, tenantry_template) as world:
        yield world


def run_programs(world: World, wall: Wall) -> None:
    """Run twenty programs of thirty steps, the same ones each time."""

    class Machine(SessionMachine):
        def __init__(self) -> None:
            super().__init__(world, wall)

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=20,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("wall", [*WALLS, *DRIVER_WALLS], ids=str)
def test_no_program_sees_another_tenant(world: World, wall: Wall) -> None:
    """Each of these programs sees what its tenant committed or has pending, and nothing else."""
    run_programs(world, wall)


@pytest.mark.parametrize(
    ("wall", "missing"),
    [
        *((wall, part) for wall in DATABASE_WALLS[::2] for part in ("reset", "announcement")),
        *((wall, "context") for wall in DRIVER_WALLS),
    ],
    ids=str,
)
def test_programs_find_a_missing_part(
    world: World, monkeypatch: pytest.MonkeyPatch, wall: Wall, missing: str
) -> None:
    """With a part of the layer taken away, a program sees, or is refused, what it must not."""
    for part, name, answer in PARTS[missing]:
        monkeypatch.setattr(part, name, lambda *_, answer=answer: answer)
    with pytest.raises((AssertionError, DBAPIError)):
        run_programs(world, wall)

"""The asynchronous session layer: each task's transactions run for its own tenant."""

import asyncio
import re
import types
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from tests.fixtures.drivers import Driver, url_of
from tests.fixtures.worlds import A, B, C, World, names_of

import tenantry
from assay.models import Base, TestSet
from tenantry import (
    ConfigurationError,
    CrossTenantError,
    InvalidTenantError,
    MissingTenantError,
    Tenant,
    TenantSwitchError,
)
from tenantry.asyncio import (
    clear_tenant,
    create_async_tenant_engine,
    get_tenant,
    set_tenant,
    tenant_scope,
)

NAMES = select(TestSet.name)
LETTERS = (("a", A), ("b", B), ("c", C))


@pytest.fixture(params=["psycopg-async", "asyncpg"])
def driver(request: pytest.FixtureRequest) -> Driver:
    """Return each driver in turn."""
    driver: Driver = request.param
    return driver


@asynccontextmanager
async def engine_for(world: World, driver: Driver, **options: Any) -> AsyncIterator[AsyncEngine]:
    """Yield an engine, by default with one connection."""
    options = {"pool_size": 1, "max_overflow": 0, "pool_timeout": 5} | options
    engine = create_async_tenant_engine(
        url_of(driver, world.walled.app_url), metadata=Base.metadata, **options
    )
    try:
        yield engine
    finally:
        await engine.dispose()


@asynccontextmanager
async def bound(engine: AsyncEngine, tenant: uuid.UUID) -> AsyncIterator[AsyncSession]:
    """Yield a new AsyncSession for this tenant."""
    async with AsyncSession(engine) as session:
        await set_tenant(session, tenant)
        yield session


async def seen(target: AsyncSession | AsyncConnection) -> set[str]:
    """Return the names of the sets that can be read."""
    return set((await target.execute(NAMES)).scalars())


async def nobodys(engine: AsyncEngine) -> set[str]:
    """Return the names that a Connection without a tenant can read."""
    async with engine.connect() as connection:
        return await seen(connection)


async def test_session_keeps_its_tenant(world: World, driver: Driver) -> None:
    """Each transaction of an AsyncSession, on whatever connection, runs for its tenant."""
    async with engine_for(world, driver) as engine:
        for letter, tenant in LETTERS:
            async with bound(engine, tenant) as session:
                assert get_tenant(session) == Tenant(tenant)
                for end in (session.commit, session.rollback, session.commit):
                    assert await seen(session) == names_of(letter)
                    await end()
                    assert await seen(session) == names_of(letter)
        assert await nobodys(engine) == set()


async def test_connection_keeps_its_tenant(world: World, driver: Driver) -> None:
    """Transactions of one AsyncConnection, each for another tenant, see one tenant each."""
    async with engine_for(world, driver) as engine, engine.connect() as connection:
        for end in (connection.commit, connection.rollback):
            for letter, tenant in LETTERS:
                await set_tenant(connection, tenant)
                assert get_tenant(connection) == Tenant(tenant)
                assert await seen(connection) == names_of(letter)
                async with connection.begin_nested():
                    assert await seen(connection) == names_of(letter)
                await end()
        await clear_tenant(connection)
        assert get_tenant(connection) is None
        assert await seen(connection) == set()


async def test_scope_is_one_transaction(world: World, driver: Driver) -> None:
    """`tenant_scope` commits what was written, and rolls back when it is left by an exception."""
    async with engine_for(world, driver) as engine:
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        async with tenant_scope(A, sessions=sessions) as session:
            session.add(TestSet(name="a kept"))
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with tenant_scope(A, sessions=sessions) as session:
                session.add(TestSet(name="a lost"))
                await session.flush()
                raise ZeroDivisionError
        async with tenant_scope(A, sessions=sessions) as session:
            assert await seen(session) == names_of("a") | {"a kept"}
            kept = await session.scalar(select(TestSet).where(TestSet.name == "a kept"))
            await session.delete(kept)
        async with tenant_scope(B, sessions=sessions) as session:
            assert await seen(session) == names_of("b")
        with pytest.raises(InvalidTenantError):
            async with tenant_scope("' or true --", sessions=sessions):
                pytest.fail("the scope was entered")


async def test_late_tenant_counts_at_once(world: World, driver: Driver) -> None:
    """A tenant that is bound in an open transaction holds for the rest of it, and the next."""
    async with engine_for(world, driver) as engine:
        async with AsyncSession(engine) as session:
            await session.execute(text("select 1"))
            await set_tenant(session, A)
            assert await seen(session) == names_of("a")
            await session.rollback()
            assert await seen(session) == names_of("a")
        assert await nobodys(engine) == set()


async def test_switch_is_refused(world: World, driver: Driver) -> None:
    """A Session in use cannot become another tenant's, nor two share a connection."""
    async with engine_for(world, driver) as engine:
        async with bound(engine, A) as session:
            assert await seen(session) == names_of("a")
            with pytest.raises(TenantSwitchError, match="in a transaction"):
                await set_tenant(session, B)
            with pytest.raises(TenantSwitchError, match="in a transaction"):
                await clear_tenant(session)
            await session.rollback()
            await set_tenant(session, B)
            assert await seen(session) == names_of("b")
        async with engine.connect() as connection, AsyncSession(connection) as session:
            await set_tenant(connection, A)
            assert await seen(connection) == names_of("a")
            await set_tenant(session, B)
            with pytest.raises(TenantSwitchError):
                await seen(session)


async def test_orm_is_refused_without_a_tenant(world: World, driver: Driver) -> None:
    """An AsyncSession without a tenant raises, and files nothing under another."""
    async with engine_for(world, driver) as engine:
        async with AsyncSession(engine) as session:
            with pytest.raises(MissingTenantError):
                await session.execute(NAMES)
        async with bound(engine, A) as session:
            session.add(TestSet(name="a"))
            with pytest.raises(CrossTenantError):
                session.add(TestSet(name="b", organization_id=B))


async def test_streamed_rows_are_the_tenants(world: World, driver: Driver) -> None:
    """`stream`, `stream_scalars` and `yield_per` return the bound tenant's rows alone."""
    async with engine_for(world, driver) as engine:
        for letter, tenant in LETTERS:
            async with bound(engine, tenant) as session:
                streamed = await session.stream_scalars(NAMES.execution_options(yield_per=1))
                assert {name async for name in streamed} == names_of(letter)
                rows = await session.stream(NAMES)
                first = await rows.first()
                assert first is not None
                assert first[0] in names_of(letter)
                half_read = await session.stream_scalars(NAMES.execution_options(yield_per=1))
                assert await anext(half_read) in names_of(letter)
        assert await nobodys(engine) == set()


async def test_scoped_session_is_bound(world: World, driver: Driver) -> None:
    """What is bound to an `async_scoped_session` is bound to the task's own Session."""
    async with engine_for(world, driver, pool_size=2) as engine:
        scoped = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)

        async def read(letter: str, tenant: uuid.UUID) -> None:
            await set_tenant(scoped, tenant)
            assert get_tenant(scoped) == Tenant(tenant)
            assert set((await scoped.execute(NAMES)).scalars()) == names_of(letter)
            await asyncio.sleep(0)
            assert set((await scoped.execute(NAMES)).scalars()) == names_of(letter)
            await scoped.remove()

        await asyncio.gather(*(read(letter, tenant) for letter, tenant in LETTERS))


async def test_tasks_at_once_see_their_own_rows(world: World, driver: Driver) -> None:
    """Tasks that share fewer connections than they are see their own tenant's rows each time."""
    async with engine_for(world, driver, pool_size=3, pool_timeout=30) as engine:

        async def work(number: int) -> None:
            letter, tenant = LETTERS[number % 3]
            for turn in range(6):
                async with bound(engine, tenant) as session:
                    assert await seen(session) == names_of(letter)
                    await asyncio.sleep(0.001 * (number % 4))
                    name = f"{letter} of {number}"
                    await session.execute(insert(TestSet), [{"name": name}])
                    owners = select(TestSet.organization_id, func.count()).group_by(
                        TestSet.organization_id
                    )
                    assert (await session.execute(owners)).all() == [(tenant, 3)]
                    await (session.rollback() if turn % 2 else session.close())
                if turn % 3 == 0:
                    assert await nobodys(engine) == set()

        await asyncio.gather(*(work(number) for number in range(12)))


@types.coroutine
def cancelled_at(
    suspension: int, coroutine: Awaitable[None], later: bool
) -> Generator[Any, Any, bool]:
    """Await it, and have the task cancelled where it waits for the n-th time; tell if it was.

    Args:
        suspension: the number of the wait.
        coroutine: what waits.
        later: cancel when the event loop has had its turn.
    """
    task = asyncio.current_task()
    assert task is not None
    steps = coroutine.__await__()
    count = 0
    try:
        waited = next(steps)
        while True:
            count += 1
            if count == suspension:
                if later:
                    asyncio.get_running_loop().call_soon(task.cancel)
                else:
                    task.cancel()
            try:
                sent = yield waited
            except BaseException as error:  # noqa: BLE001 - the coroutine is told of it
                waited = steps.throw(error)
            else:
                waited = steps.send(sent)
    except StopIteration:
        return count >= suspension


async def program(engine: AsyncEngine) -> None:
    """Read, write, save and commit as A, read again, and give the connection back."""
    async with bound(engine, A) as session:
        assert names_of("a") <= await seen(session)
        async with session.begin_nested():
            await session.execute(insert(TestSet), [{"name": f"a {uuid.uuid4()}"}])
        await session.execute(text("select pg_advisory_lock(42)"))
        await session.commit()
        assert names_of("a") <= await seen(session)
        await session.rollback()


async def sweep(engine: AsyncEngine, later: bool) -> int:
    """Cancel the program at each of its waits; the next users are as bound; return how many."""
    for suspension in range(1, 500):
        task = asyncio.ensure_future(cancel(engine, suspension, later))
        done = await asyncio.gather(task, return_exceptions=True)
        reached = done[0]
        assert isinstance(reached, bool | asyncio.CancelledError), reached
        assert await nobodys(engine) == set()
        async with bound(engine, B) as session:
            assert await seen(session) == names_of("b")
            lock = "select count(*) from pg_locks where locktype = 'advisory' and pid = "
            assert await session.scalar(text(f"{lock} pg_backend_pid()")) == 0
            await session.commit()
            assert await seen(session) == names_of("b")
        if reached is False:
            return suspension
    raise AssertionError("the program does not end")


async def cancel(engine: AsyncEngine, suspension: int, later: bool) -> bool:
    """Run the program as a task that is cancelled at its n-th wait; tell whether it was."""
    return await cancelled_at(suspension, program(engine), later)


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_cancelled_task_leaves_nothing(world: World, driver: Driver, later: bool) -> None:
    """Wherever a task is cancelled, in its begin, statements, commit or return to the pool."""
    # SQLAlchemy 2.0 loses a place in the pool where the task is cancelled while it connects.
    async with engine_for(world, driver, max_overflow=-1) as engine:
        try:
            assert await sweep(engine, later) > 5
        finally:
            async with bound(engine, A) as session:
                await session.execute(text("delete from test_sets where name like 'a %'"))
                await session.commit()


async def test_interrupted_statement_leaves_nothing(world: World, driver: Driver) -> None:
    """A task that is cancelled in a long statement gives back a connection that is nobody's."""
    async with engine_for(world, driver) as engine:
        for letter, tenant in LETTERS:
            with pytest.raises(asyncio.TimeoutError):
                async with asyncio.timeout(0.05), bound(engine, tenant) as session:
                    await session.execute(text("select pg_sleep(10)"))
            assert await nobodys(engine) == set()
            async with bound(engine, tenant) as session:
                assert await seen(session) == names_of(letter)


async def test_failed_statement_leaves_its_tenant(world: World, driver: Driver) -> None:
    """An error in the first statement is raised, and the next transaction is as bound."""
    async with engine_for(world, driver) as engine, bound(engine, A) as session:
        with pytest.raises(DBAPIError):
            await session.execute(text("select 1 / 0"))
        await session.rollback()
        assert await seen(session) == names_of("a")


async def test_session_of_a_plain_engine_is_refused(world: World, driver: Driver) -> None:
    """A tenant is not bound where nobody would write it."""
    engine = create_async_engine(url_of(driver, world.walled.app_url))
    async with AsyncSession(engine) as session:
        with pytest.raises(ConfigurationError, match="not protected"):
            await set_tenant(session, A)
    await engine.dispose()


@pytest.mark.parametrize(
    "function",
    [
        lambda session: tenantry.set_tenant(session, A),
        tenantry.get_tenant,
        tenantry.clear_tenant,
    ],
    ids=["set", "get", "clear"],
)
async def test_asynchronous_session_is_not_taken_for_another(
    world: World, driver: Driver, function: Callable[[Any], object]
) -> None:
    """The synchronous functions name the module that has those for an AsyncSession."""
    async with (
        engine_for(world, driver) as engine,
        AsyncSession(engine) as session,
        engine.connect() as connection,
    ):
        for target in (session, connection):
            with pytest.raises(ConfigurationError, match=r"tenantry\.asyncio"):
                function(target)


async def test_example_of_the_readme_runs(world: World) -> None:
    """What the README shows of the asynchronous layer returns the organization's rows."""
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    (example,) = [block for block in blocks if "create_async_tenant_engine" in block]
    url = url_of("asyncpg", world.walled.app_url).render_as_string(hide_password=False)
    names: dict[str, Any] = {"Base": Base, "TestSet": TestSet, "select": select, "uuid": uuid}
    exec(example.replace("postgresql+asyncpg://…", url), names)  # noqa: S102 - the README's own
    for letter, tenant in LETTERS:
        assert set(await names["test_sets"](tenant)) == names_of(letter)
    await names["engine"].dispose()

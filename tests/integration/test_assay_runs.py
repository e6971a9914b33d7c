"""Runs as rows: begun once, completed once, whoever comes last and however often it is asked."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pytest
from sqlalchemy import Engine, delete, func, select, update
from sqlalchemy.orm import Session, sessionmaker

from assay.config import EndpointPolicy, RunPolicy
from assay.exceptions import UnknownRunError
from assay.models import (
    Base,
    Endpoint,
    Metric,
    RunStatus,
    Test,
    TestConfiguration,
    TestResult,
    TestRun,
    TestSet,
    TestSetTest,
    Verdict,
)
from assay.services import runs, stalls
from assay.services.configurations import create_configuration
from assay.services.organizations import create_organization
from tenantry import create_tenant_engine, tenant_scope
from tenantry.testing import Database

PASSED = runs.Outcome(Verdict.PASS, received="yes")
ERROR = runs.Outcome(Verdict.ERROR, error="down")


@dataclass(frozen=True)
class World:
    """An organization with a set of three tests and a configuration."""

    sessions: Callable[[], Session]
    organization: uuid.UUID
    configuration: uuid.UUID
    tests: Sequence[uuid.UUID]

    def begin(self, task_id: uuid.UUID | None = None) -> uuid.UUID:
        """Begin a run."""
        with tenant_scope(self.organization, sessions=self.sessions) as session:
            return runs.begin_run(
                session,
                organization_id=self.organization,
                configuration_id=self.configuration,
                task_id=task_id or uuid.uuid4(),
            )

    def file(self, run: uuid.UUID, test: uuid.UUID, outcome: runs.Outcome) -> bool:
        """File an outcome in a transaction of its own."""
        with tenant_scope(self.organization, sessions=self.sessions) as session:
            return runs.file_outcome(session, self.organization, run, test, outcome)

    def end(self, run: uuid.UUID) -> RunStatus:
        """Try to end the run in a transaction of its own."""
        with tenant_scope(self.organization, sessions=self.sessions) as session:
            return runs.end_run(session, self.organization, run)

    def summary(self, run: uuid.UUID) -> runs.RunSummary:
        """Return where the run stands."""
        with tenant_scope(self.organization, sessions=self.sessions) as session:
            return runs.summarize_run(session, self.organization, run)


@pytest.fixture(scope="module")
def engine(tenantry_database: Database, unprivileged_app: None) -> Iterator[Engine]:
    """Return an engine of the application's unprivileged login."""
    engine = create_tenant_engine(
        tenantry_database.app_url, mode="database", metadata=Base.metadata, pool_size=12
    )
    yield engine
    engine.dispose()


@pytest.fixture
def world(engine: Engine) -> World:
    """Return an organization of the test's own."""
    return build_world(sessionmaker(engine))


def build_world(sessions: Callable[[], Session], tests: int = 3) -> World:
    """Create an organization with so many tests."""
    organization = create_organization("Runs", sessions=sessions).id
    set_id = uuid.uuid4()
    ids = [uuid.uuid4() for _ in range(tests)]
    with tenant_scope(organization, sessions=sessions) as session:
        session.add(TestSet(id=set_id, name="set"))
        session.add_all(
            Test(id=id_, prompt=f"{id_}?", expected=["x"], metric=Metric.EXACT) for id_ in ids
        )
        session.flush()
        session.add_all(
            TestSetTest(test_set_id=set_id, test_id=id_, position=place)
            for place, id_ in enumerate(ids)
        )
    configuration = create_configuration(
        organization,
        "configuration",
        test_set_id=set_id,
        url="https://example.org/",
        policy=EndpointPolicy(),
        timeout_seconds=1,
        sessions=sessions,
    )
    return World(sessions, organization, configuration, ids)


def test_run_is_created_once_for_a_task(world: World) -> None:
    """A task that is delivered again, even to several workers at once, finds the run it made."""
    task_id = uuid.uuid4()
    found: list[uuid.UUID] = []
    _at_once([lambda: found.append(world.begin(task_id)) for _ in range(8)])
    assert len(found) == 8
    assert len(set(found)) == 1
    assert world.summary(found[0]).status is RunStatus.RUNNING


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([PASSED, PASSED, runs.Outcome(Verdict.FAIL)], RunStatus.COMPLETED),
        ([PASSED, runs.Outcome(Verdict.FAIL), ERROR], RunStatus.PARTIAL),
        ([ERROR, ERROR, ERROR], RunStatus.FAILED),
    ],
)
def test_run_ends_as_its_rows_say(
    world: World, outcomes: list[runs.Outcome], status: RunStatus
) -> None:
    """Executed is completed, whatever the verdict; what could not be executed makes it less."""
    run = world.begin()
    for test, outcome in zip(world.tests, outcomes, strict=True):
        assert world.end(run) is RunStatus.RUNNING
        assert world.file(run, test, outcome)
    assert world.end(run) is status
    assert world.end(run) is status


def test_second_result_of_a_test_is_not_stored(world: World) -> None:
    """What came first stays, however often the message is delivered."""
    run = world.begin()
    assert world.file(run, world.tests[0], PASSED)
    assert not world.file(run, world.tests[0], ERROR)
    assert world.summary(run).passed == 1
    assert world.summary(run).errors == 0


def test_last_two_finishing_at_once_end_the_run(engine: Engine) -> None:
    """Of all that finish at the same moment at least one sees that nothing is missing."""
    for _ in range(5):
        world = build_world(sessionmaker(engine), tests=8)
        run = world.begin()
        barrier = threading.Barrier(8)

        def finish(test: uuid.UUID) -> None:
            barrier.wait(60)  # noqa: B023 - called within the same round
            world.file(run, test, PASSED)  # noqa: B023
            world.end(run)  # noqa: B023

        _at_once([lambda test=test: finish(test) for test in world.tests])  # type: ignore[misc]
        assert world.summary(run).status is RunStatus.COMPLETED


def test_cancelled_run_takes_no_more_results(world: World) -> None:
    """A test that was under way when its run was cancelled leaves no result."""
    run = world.begin()
    world.file(run, world.tests[0], PASSED)
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        assert runs.cancel_run(session, world.organization, run, reason="by hand")
        assert not runs.cancel_run(session, world.organization, run, reason="again")
    assert not world.file(run, world.tests[1], PASSED)
    assert world.end(run) is RunStatus.CANCELLED
    assert world.summary(run).error == "by hand"
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        assert runs.missing_tests(session, world.organization, run) == []
        assert runs.work_of(session, world.organization, run, world.tests[1]) is None


def test_run_that_cannot_start_has_failed_and_says_why(world: World) -> None:
    """An unknown configuration and an empty set end the run at once, with the reason."""
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        unknown = runs.begin_run(
            session,
            organization_id=world.organization,
            configuration_id=uuid.uuid4(),
            task_id=uuid.uuid4(),
        )
    assert world.summary(unknown).status is RunStatus.FAILED
    assert "no test configuration" in str(world.summary(unknown).error)
    empty = build_world(world.sessions, tests=0)
    run = empty.begin()
    assert empty.summary(run).status is RunStatus.FAILED
    assert "no tests" in str(empty.summary(run).error)


def test_run_whose_configuration_is_deleted_is_cancelled(world: World) -> None:
    """Without the configuration nobody knows the run's tests: it ends, and says why."""
    run = world.begin()
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        session.execute(delete(TestConfiguration))
    assert world.end(run) is RunStatus.CANCELLED
    assert "deleted" in str(world.summary(run).error)


def test_test_that_is_deleted_meanwhile_is_not_waited_for(world: World) -> None:
    """A test that leaves the set while the run is under way does not keep it from ending."""
    run = world.begin()
    for test in world.tests[:2]:
        world.file(run, test, PASSED)
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        session.execute(delete(Test).where(Test.id == world.tests[2]))
    assert world.end(run) is RunStatus.COMPLETED


def test_run_of_another_organization_is_unknown(world: World) -> None:
    """The run's id alone is worth nothing in another organization."""
    run = world.begin()
    other = build_world(world.sessions)
    with pytest.raises(UnknownRunError):
        other.summary(run)
    assert not other.file(run, other.tests[0], PASSED)
    with pytest.raises(UnknownRunError):
        other.end(run)


def test_stalled_run_is_claimed_by_one_of_many_sweepers(world: World) -> None:
    """Two sweepers at once do not both send the missing tests out again."""
    run = world.begin()
    _age(world, run, seconds=300)
    claimed: list[uuid.UUID] = []
    policy = RunPolicy(stalled_after=60)

    def claim() -> None:
        with tenant_scope(world.organization, sessions=world.sessions) as session:
            claimed.extend(stalls.claim_stalled_runs(session, world.organization, policy))

    _at_once([claim] * 6)
    assert claimed == [run]
    claim()
    assert claimed == [run]


def test_run_with_progress_is_not_stalled(world: World) -> None:
    """A result just now means that somebody works on the run."""
    run = world.begin()
    world.file(run, world.tests[0], PASSED)
    _age(world, run, seconds=300)
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        found = stalls.claim_stalled_runs(session, world.organization, RunPolicy(stalled_after=60))
    assert found == []


def test_slow_endpoint_is_given_its_time(world: World) -> None:
    """While a single test may still take ten minutes, silence of five is no stall."""
    run = world.begin()
    _age(world, run, seconds=300)
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        session.execute(update(Endpoint).values(timeout_seconds=600))
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        found = stalls.claim_stalled_runs(session, world.organization, RunPolicy(stalled_after=60))
    assert found == []


def test_run_without_hope_is_given_up(world: World) -> None:
    """What never comes to an end is filed as an error, and the run ends with what it has."""
    run = world.begin()
    world.file(run, world.tests[0], PASSED)
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        session.execute(update(TestResult).values(created_at=func.now() - _interval(7200)))
    _age(world, run, seconds=7200)
    for given_up in (2, 0):
        with tenant_scope(world.organization, sessions=world.sessions) as session:
            assert given_up == stalls.give_up_run(session, world.organization, run, RunPolicy())
    assert world.end(run) is RunStatus.PARTIAL
    assert world.summary(run).errors == 2


def test_setting_of_the_tenant_can_be_asked_for_where_it_is_undefined(
    empty_database: Database, world: World
) -> None:
    """The question does not break the transaction of a database that never heard of the setting."""
    engine = create_tenant_engine(empty_database.app_url, mode="filters", scope="transaction")
    with Session(engine) as session:
        assert runs.database_tenant(session) is None
        assert session.scalar(select(1)) == 1
    engine.dispose()
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        assert runs.database_tenant(session) == str(world.organization)


def _age(world: World, run: uuid.UUID, *, seconds: int) -> None:
    with tenant_scope(world.organization, sessions=world.sessions) as session:
        session.execute(
            update(TestRun)
            .where(TestRun.id == run)
            .values(
                started_at=func.now() - _interval(seconds),
                updated_at=func.now() - _interval(seconds),
            )
        )


def _interval(seconds: int) -> object:
    return func.make_interval(0, 0, 0, 0, 0, 0, seconds)


def _at_once(actions: Sequence[Callable[[], object]]) -> None:
    failures: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures, failures

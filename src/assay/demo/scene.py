"""Two organizations with rows in every table; made once, found again later."""

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Final

from sqlalchemy import Connection, Engine, Table, func, select
from sqlalchemy.orm import Session

from assay.database import SessionLocal
from assay.exceptions import UnknownOrganizationError
from assay.models import (
    ApiToken,
    Base,
    Endpoint,
    RunStatus,
    TaskRecord,
    Test,
    TestConfiguration,
    TestResult,
    TestRun,
    TestSet,
    User,
    Verdict,
)
from assay.services.imports import import_tests
from assay.services.organizations import create_organization, find_organization
from assay.services.sets import list_sets
from tenantry import MissingTenantError, set_tenant, tenant_scope
from tenantry.celery import TaskState
from tenantry.celery.records import digest_arguments
from tenantry.models import tenant_column
from tenantry.testing.attacks_seeds import seed_tenant

# Its module would make a Celery application, and with it a broker.
_TASK: Final = "assay.tasks.test_configuration.execute_test_configuration"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What an organization of the demonstration is made of."""

    name: str
    users: tuple[str, ...]
    test_set: str
    file: str
    endpoint: str


ATTACKER: Final = Script(
    name="Demo Harbour",
    users=("ada@harbour.example", "grace@harbour.example"),
    test_set="Seamanship",
    file="harbour.csv",
    endpoint="Pilot",
)
VICTIM: Final = Script(
    name="Demo Orchard",
    users=("carl@orchard.example", "rosa@orchard.example", "anna@orchard.example"),
    test_set="Fruit growing",
    file="orchard.jsonl",
    endpoint="Gardener",
)


@dataclass(frozen=True, slots=True)
class Player:
    """An organization of the demonstration, as it is in the database."""

    id: uuid.UUID
    script: Script
    created: bool

    @property
    def name(self) -> str:
        """Return the organization's name."""
        return self.script.name


def cast_player(script: Script, maintenance: Engine | None) -> Player:
    """Return the organization, created with its users unless an earlier run did.

    Its id is random, so it is found by name, which is work across tenants: without a login for
    that each run creates another one.
    """
    if maintenance is not None:
        try:
            found = find_organization(
                script.name,
                reason="the demonstration looks for its organizations",
                actor="make demo",
                maintenance_engine=maintenance,
            )
        except UnknownOrganizationError:
            pass
        else:
            return Player(found.id, script, created=False)
    created = create_organization(script.name, users=script.users)
    return Player(created.id, script, created=True)


def import_set(player: Player) -> str:
    """Import the player's built-in set of tests unless it is there, and say which of the two."""
    script = player.script
    for found in list_sets(player.id):
        if found.name == script.test_set:
            return f"{script.name} has {found.name!r} ({found.tests} tests)"
    with as_file(files("assay.demo").joinpath(script.file)) as path:
        imported = import_tests(path, player.id, script.test_set)
    return f"{imported.tests} tests into {imported.name!r} of {script.name} from {script.file}"


def record_run(player: Player) -> str:
    """File a run with a result for each test unless there is one, and leave no table empty."""
    with tenant_scope(player.id, sessions=SessionLocal) as session:
        results = session.scalar(select(func.count()).select_from(TestResult))
        told = f"{player.name} has its run"
        if not results:
            told = (
                f"a run with {_file_run(session, player.script.endpoint)} results for {player.name}"
            )
        session.flush()
        _record_task(session)
        seed_tenant(session.connection(), Base.metadata, player.id)
    return told


def _file_run(session: Session, name: str) -> int:
    user_id = session.scalars(select(User.id).order_by(User.email).limit(1)).one()
    test_set_id = session.scalars(select(TestSet.id).order_by(TestSet.name).limit(1)).one()
    token = secrets.token_urlsafe(32)
    endpoint = Endpoint(id=uuid.uuid4(), name=name, url="https://assistant.example/answer")
    configuration = TestConfiguration(
        id=uuid.uuid4(), name=f"{name}, nightly", test_set_id=test_set_id, endpoint_id=endpoint.id
    )
    run = TestRun(
        id=uuid.uuid4(),
        test_configuration_id=configuration.id,
        started_by_id=user_id,
        task_id=uuid.uuid4(),
        status=RunStatus.COMPLETED,
    )
    session.add_all(
        [
            ApiToken(
                user_id=user_id,
                name="demonstration",
                prefix=token[:6],
                token_hash=hashlib.sha256(token.encode()).digest(),
            ),
            endpoint,
            configuration,
            run,
        ]
    )
    session.flush()
    tests = session.scalars(select(Test.id)).all()
    session.add_all(
        TestResult(test_run_id=run.id, test_id=test_id, verdict=Verdict.PASS, duration_ms=120)
        for test_id in tests
    )
    return len(tests)


def _record_task(session: Session) -> None:
    """Note the task that made the run, as one that has ended: a sweeper has nothing to see to."""
    if session.scalar(select(func.count()).select_from(TaskRecord)):
        return
    run = session.scalars(select(TestRun).order_by(TestRun.id).limit(1)).one()
    arguments = [str(run.test_configuration_id)]
    session.add(
        TaskRecord(
            id=run.task_id,
            name=_TASK,
            state=TaskState.SUCCESS,
            args_digest=digest_arguments(arguments, {}),
            payload={"args": arguments, "kwargs": {}, "options": {}},
            finished_at=func.now(),
        )
    )
    session.flush()


@dataclass(frozen=True, slots=True)
class Sight:
    """How many rows of a table are seen: by each player, without a tenant, and in truth."""

    table: str
    players: tuple[int, ...]
    nobody: int
    total: int | None


def look_around(
    application: Engine, players: tuple[Player, ...], maintenance: Engine | None
) -> list[Sight]:
    """Count every tenant table as the application role: for each player, then for nobody."""
    seen = [_counts(application, player.id) for player in players]
    nobody = _counts(application, None)
    total: dict[str, int] = {}
    if maintenance is not None:
        with maintenance.connect() as connection:
            total = _count_all(connection)
    return [
        Sight(name, tuple(counts[name] for counts in seen), nobody[name], total.get(name))
        for name in nobody
    ]


def _counts(engine: Engine, tenant: uuid.UUID | None) -> dict[str, int]:
    with engine.connect() as connection:
        if tenant is not None:
            set_tenant(connection, tenant)
        try:
            return _count_all(connection)
        except MissingTenantError:
            # Explicit filters stand in for the database, which would have shown no rows.
            return dict.fromkeys((table.name for table in _tenant_tables()), 0)


def _count_all(connection: Connection) -> dict[str, int]:
    return {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in _tenant_tables()
    }


def _tenant_tables() -> list[Table]:
    return [table for table in Base.metadata.sorted_tables if tenant_column(table) is not None]

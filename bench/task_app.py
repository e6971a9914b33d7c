"""The applications whose tasks are compared; a worker takes `app` from here by its environment."""

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

import celery
from billiard.process import current_process
from celery import Celery
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from assay.models import Base, TaskRecord
from tenantry import create_tenant_engine
from tenantry.celery import BaseTask, install_tenancy, tenant_free, with_tenant_context
from tenantry.celery.transports import install_transports

Variant = Literal["plain", "tenant", "session", "recorded"]
VARIANTS: Final[tuple[Variant, ...]] = ("plain", "tenant", "session", "recorded")

VARIABLE: Final = "BENCH_TASKS"
_KEY: Final = "k" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is measured, and where it runs.

    Attributes:
        variant: `plain` is celery.Task on an application without Tenantry, `tenant` is BaseTask,
            `session` is one that is handed its Session, `recorded` the same with a record.
        broker: as Celery has it.
        results: as Celery has them.
        database: of the application.
    """

    variant: Variant
    broker: str
    results: str
    database: str

    def text(self) -> str:
        """Return it for the environment of a worker."""
        return json.dumps(asdict(self))


def make_app(place: Place) -> Celery:
    """Return an application with the tasks `nothing`, `gate` and `finish`."""
    # The same broker for all, plain tasks included.
    install_transports()
    app = Celery(f"bench-{place.variant}", set_as_current=False)
    app.conf.update(
        broker_url=place.broker,
        result_backend=place.results,
        task_default_queue=f"bench-{place.variant}",
        accept_content=["json"],
        timezone="UTC",
        broker_connection_retry_on_startup=True,
        database_create_tables_at_setup=False,
    )
    if place.variant != "plain":
        engine = create_tenant_engine(make_url(place.database), metadata=Base.metadata)
        records = TaskRecord if place.variant == "recorded" else None
        install_tenancy(app, key=_KEY, sessions=sessionmaker(engine), records=records)
    _add_tasks(app, place.variant)
    return app


def _add_tasks(app: Celery, variant: Variant) -> None:
    base = celery.Task if variant == "plain" else BaseTask
    nothing = _nothing_with_session if variant in {"session", "recorded"} else _nothing
    app.task(name="nothing", base=base, shared=False, ignore_result=True)(nothing)
    options = {"base": base, "shared": False} | ({} if variant == "plain" else {"record": False})

    @app.task(name="gate", **options)
    @tenant_free
    def gate(path: str) -> tuple[float, float]:
        """Hold the worker until the file exists, and return when it went on."""
        while not Path(path).exists():
            time.sleep(0.005)
        return time.monotonic(), _cpu_seconds()

    @app.task(name="finish", **options)
    @tenant_free
    def finish() -> tuple[float, float]:
        """Return when everything before it was done."""
        return time.monotonic(), _cpu_seconds()


def _cpu_seconds() -> float:
    """Return what this worker has used of a processor, its main process included where one is."""
    parent = Path(f"/proc/{os.getppid()}/stat")
    own = time.process_time()
    if current_process().name == "MainProcess" or not parent.exists():
        return own
    user, system = parent.read_text().rpartition(")")[2].split()[11:13]
    return own + (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _nothing(number: int, text: str) -> None:
    """Do nothing."""


@with_tenant_context
def _nothing_with_session(db: Session, number: int, text: str) -> None:
    """Do nothing, in a Session that nothing is asked of."""


if VARIABLE in os.environ:
    app = make_app(Place(**json.loads(os.environ[VARIABLE])))

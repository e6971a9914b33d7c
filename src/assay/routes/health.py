"""`/healthz`, `/readyz` and `/metrics`: for those who run the API; they tell of no tenant."""

import logging
from typing import Literal

from fastapi import APIRouter, Request, Response
from kombu.exceptions import KombuError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from sqlalchemy import literal, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from assay.worker import app as celery
from tenantry import TenancyError
from tenantry.fastapi import probe_isolation

logger = logging.getLogger("assay.api")

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """What the API needs, and whether it is there."""

    ready: bool
    database: Literal["ok", "unavailable"]
    broker: Literal["ok", "unavailable"]
    isolation: Literal["database", "filters", "unknown"]


@router.get("/healthz")
async def is_alive() -> Health:
    """Say that the process answers."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready"}})
def is_ready(request: Request, response: Response) -> Readiness:
    """Say whether requests can be served and tasks launched, and what keeps tenants apart."""
    isolation = _isolation(request)
    broker = _broker_answers()
    ready = isolation != "unknown" and broker
    if not ready:
        response.status_code = 503
    return Readiness(
        ready=ready,
        database="unavailable" if isolation == "unknown" else "ok",
        broker="ok" if broker else "unavailable",
        isolation=isolation,
    )


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Show the numbers of this process as Prometheus reads them."""
    return Response(
        generate_latest(request.app.state.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
    )


def _isolation(request: Request) -> Literal["database", "filters", "unknown"]:
    sessions: sessionmaker[Session] = request.app.state.sessions
    try:
        _ask(sessions)
        probed = probe_isolation(sessions)
    except (SQLAlchemyError, TenancyError) as error:
        logger.warning("not ready: %s", error)
        return "unknown"
    return "filters" if probed.filtered else "database"


def _ask(sessions: sessionmaker[Session]) -> None:
    """Return if the database answers: that a connection is in the pool does not say so."""
    question = select(literal(1))
    try:
        with sessions() as session:
            session.execute(question)
    except DBAPIError as error:
        if not error.connection_invalidated:
            raise
        # One of before a restart, and with it all others: now there are none but new ones.
        with sessions() as session:
            session.execute(question)


def _broker_answers() -> bool:
    connection = celery.connection_for_write(connect_timeout=2)
    unavailable = (OSError, KombuError, SQLAlchemyError, *connection.connection_errors)
    try:
        with connection:
            connection.ensure_connection(max_retries=1, interval_start=0, timeout=2)
            connection.default_channel.queue_declare("celery", passive=True)
    except connection.channel_errors:
        # It answers, that nobody has made the queue yet.
        return True
    except unavailable as error:
        logger.warning("not ready, the broker does not answer: %s", error)
        return False
    return True

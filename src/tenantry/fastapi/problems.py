"""Errors as problem details (RFC 9457): what the client can act on, and nothing of the inside."""

import logging
from collections.abc import Callable, Mapping
from http.client import responses
from typing import Any, Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DBAPIError, NoResultFound
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from tenantry.diagnosis import sqlstate
from tenantry.exceptions import (
    CrossTenantError,
    DatabaseUnreachableError,
    IsolationNotEnforcedError,
    MissingMigrationsError,
    TenancyError,
    UnknownTenantError,
)

logger = logging.getLogger("tenantry.fastapi")

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"

PROBLEM_SCHEMA: Final[Mapping[str, Any]] = {
    "title": "Problem",
    "type": "object",
    "description": "Problem details as RFC 9457 has them.",
    "required": ["title", "status"],
    "properties": {
        "title": {"type": "string", "examples": ["Not Found"]},
        "status": {"type": "integer", "examples": [404]},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "description": "What is wrong with the request, part by part.",
            "items": {
                "type": "object",
                "required": ["location", "message"],
                "properties": {
                    "location": {"type": "array", "items": {"type": ["string", "integer"]}},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
"""JSON Schema of every error response, for the OpenAPI document."""

_RETRY: Final = {"Retry-After": "1"}

# By SQLSTATE; a class of two characters where all of it is meant.
_STATES: Final[Mapping[str, tuple[int, str]]] = {
    "23505": (409, "There is such a thing already."),
    "23503": (409, "Something that this refers to does not exist, or something refers to it."),
    "23": (422, "A value is missing or not allowed."),
    "22": (422, "A value cannot be stored."),
    "40": (503, "Others were changing the same; try again."),
    "53": (503, "The database is busy; try again."),
    "57": (503, "The database does not answer; try again."),
    "08": (503, "The database does not answer; try again."),
}

_TENANCY: Final[tuple[tuple[type[TenancyError], int, str | None], ...]] = (
    (UnknownTenantError, 403, "The organization does not exist."),
    (CrossTenantError, 404, None),
    (DatabaseUnreachableError, 503, "The database does not answer; try again."),
    (IsolationNotEnforcedError, 503, "The service is being set up; try again."),
    (MissingMigrationsError, 503, "The service is being set up; try again."),
)


class ProblemResponse(JSONResponse):
    """An error as `application/problem+json`; two of the same status and detail are equal."""

    media_type = PROBLEM_MEDIA_TYPE

    def __init__(
        self,
        status: int,
        detail: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        """Say what happened.

        Args:
            status: of HTTP; its phrase is the title.
            detail: for a person; nothing of the inside.
            headers: of the response.
            members: further ones of the problem.
        """
        content: dict[str, Any] = {"title": responses.get(status, "Error"), "status": status}
        if detail is not None:
            content |= {"detail": detail}
        super().__init__(content | members, status, headers=headers)


def add_problem(
    app: FastAPI, error: type[Exception], respond: Callable[[Any], ProblemResponse]
) -> None:
    """Answer an error of the application's own, or any below it, by a response.

    Args:
        app: the application.
        error: the class.
        respond: given the error, returns the response.
    """

    async def handler(_request: Request, raised: Exception) -> ProblemResponse:
        return respond(raised)

    app.add_exception_handler(error, handler)


def add_problem_handlers(app: FastAPI) -> None:
    """Answer the library's errors, SQLAlchemy's and FastAPI's as problems."""
    add_problem(app, TenancyError, _of_tenancy)
    add_problem(app, DBAPIError, _of_database)
    add_problem(app, PoolTimeoutError, _of_full_pool)
    add_problem(app, NoResultFound, lambda _: ProblemResponse(404))
    add_problem(app, HTTPException, _of_http)
    add_problem(app, RequestValidationError, _of_validation)
    add_problem(app, ClientDisconnect, lambda _: ProblemResponse(400))
    add_problem(app, Exception, lambda _: ProblemResponse(500))


def _of_tenancy(error: TenancyError) -> ProblemResponse:
    logger.error("%s: %s", type(error).__name__, error)
    for kind, status, detail in _TENANCY:
        if isinstance(error, kind):
            return ProblemResponse(status, detail, headers=_RETRY if status == 503 else None)
    return ProblemResponse(500)


def _of_database(error: DBAPIError) -> ProblemResponse:
    state = sqlstate(error.orig) or ("08" if error.connection_invalidated else "")
    status, detail = _STATES.get(state) or _STATES.get(state[:2]) or (500, None)
    if status >= 500:
        logger.error("%s (%s)", type(error).__name__, state, exc_info=error)
    return ProblemResponse(status, detail, headers=_RETRY if status == 503 else None)


def _of_full_pool(error: PoolTimeoutError) -> ProblemResponse:
    logger.error("%s", error)
    return ProblemResponse(503, "The service is busy; try again.", headers=_RETRY)


def _of_http(error: HTTPException) -> ProblemResponse:
    # Its detail is the phrase of the status where none was given.
    given = None if error.detail == responses.get(error.status_code) else error.detail
    return ProblemResponse(error.status_code, given, headers=error.headers)


def _of_validation(error: RequestValidationError) -> ProblemResponse:
    # Without what was sent: it may be a secret, or no text at all.
    errors = [{"location": each["loc"], "message": each["msg"]} for each in error.errors()]
    return ProblemResponse(422, "The request is not as it should be.", errors=errors)

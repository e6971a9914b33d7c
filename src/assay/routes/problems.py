"""Assay's errors as problem details, and how the OpenAPI document tells of them."""

import logging
from http.client import responses
from typing import Any, Final

from fastapi import FastAPI
from limits.errors import StorageError

from assay.exceptions import (
    AssayError,
    AuthenticationError,
    BrokenRowError,
    DuplicateConfigurationError,
    DuplicateEndpointError,
    DuplicateTestSetError,
    DuplicateUserError,
    EndedError,
    InUseError,
    InvalidValueError,
    MissingColumnError,
    ProviderUnreachableError,
    RateLimitedError,
    RefusedEndpointError,
    ResultUnreachableError,
    ReusedKeyError,
    TooManyTestsError,
    UnknownReferenceError,
    UnreadableFileError,
)
from tenantry.fastapi import PROBLEM_MEDIA_TYPE, PROBLEM_SCHEMA, ProblemResponse, add_problem

logger = logging.getLogger("assay.api")

_CONFLICTS: Final = (
    DuplicateConfigurationError,
    DuplicateEndpointError,
    DuplicateTestSetError,
    DuplicateUserError,
    EndedError,
    InUseError,
)
_UNPROCESSABLE: Final = (
    InvalidValueError,
    UnreadableFileError,
    MissingColumnError,
    BrokenRowError,
    RefusedEndpointError,
    ReusedKeyError,
    UnknownReferenceError,
)


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return what a route's `responses` say of its errors.

    Args:
        statuses: beside those of every authenticated route.
    """
    content = {PROBLEM_MEDIA_TYPE: {"schema": PROBLEM_SCHEMA}}
    return {
        status: {"description": responses[status], "content": content}
        for status in sorted({*statuses, 400, 401, 422, 429, 503})
    }


def add_assay_problems(app: FastAPI) -> None:
    """Answer Assay's errors: what is not there is always the same 404."""
    add_problem(app, AssayError, _respond)
    add_problem(app, AuthenticationError, _refuse)
    add_problem(app, RateLimitedError, _delay)
    add_problem(app, StorageError, _postpone)
    add_problem(app, ResultUnreachableError, _postpone)
    add_problem(app, ProviderUnreachableError, _postpone)


def _respond(error: AssayError) -> ProblemResponse:
    if isinstance(error, LookupError):
        return ProblemResponse(404)
    if isinstance(error, _CONFLICTS):
        return ProblemResponse(409, str(error))
    if isinstance(error, TooManyTestsError):
        return ProblemResponse(413, str(error))
    if isinstance(error, _UNPROCESSABLE):
        return ProblemResponse(422, str(error))
    raise error


def _refuse(_error: AuthenticationError) -> ProblemResponse:
    return ProblemResponse(401, headers={"WWW-Authenticate": "Bearer"})


def _postpone(error: Exception) -> ProblemResponse:
    logger.error("%s: %s", type(error).__name__, error)
    return ProblemResponse(
        503, "A part of the service does not answer; try again.", headers={"Retry-After": "1"}
    )


def _delay(error: RateLimitedError) -> ProblemResponse:
    return ProblemResponse(429, headers={"Retry-After": str(error.retry_after)})

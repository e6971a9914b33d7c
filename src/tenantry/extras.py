"""Which extra brings a dependency that not everybody needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tenantry.exceptions import MissingExtraError

_EXTRAS: Final = {
    "anyio": "fastapi",
    "asyncpg": "asyncpg",
    "billiard": "celery",
    "celery": "celery",
    "fastapi": "fastapi",
    "kombu": "celery",
    "prometheus_client": "monitoring",
    "psycopg": "psycopg",
    "starlette": "fastapi",
}


@contextmanager
def extras() -> Iterator[None]:
    """Say which extra brings what the block could not import.

    Raises:
        MissingExtraError: it is a dependency of one.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = (error.name or "").partition(".")[0]
        if name not in _EXTRAS:
            raise
        raise MissingExtraError(
            f"{name} is not installed: pip install 'tenantry[{_EXTRAS[name]}]'", name=name
        ) from error

"""PostgreSQL in a container; imported only where testcontainers is installed."""

import gc
import os
import secrets
import warnings
from collections.abc import Callable, Mapping
from typing import Final

from docker.errors import DockerException
from requests.exceptions import RequestException
from sqlalchemy.engine import URL
from testcontainers.community.postgres import PostgresContainer
from testcontainers.core.docker_client import DockerClient
from testcontainers.core.exceptions import ContainerStartException

from tenantry.config import parse_url
from tenantry.exceptions import DatabaseUnreachableError

DEFAULT_IMAGE: Final = "postgres:16"

# A container engine is asked for two seconds: a client without an engine fails at once, and an
# engine that accepts and never answers would take a minute.
PROBE_SECONDS: Final = 2

# Nobody reads this data after a crash of the machine.
_FORGETFUL: Final = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def engine_fault() -> str | None:
    """Return why no container can be started, or None when an engine answers in two seconds."""
    try:
        client = DockerClient(timeout=PROBE_SECONDS).client
        try:
            client.ping()
        finally:
            client.close()
    except (DockerException, RequestException) as error:
        fault = f"no Docker engine answers: {error}"
    else:
        return None
    # A client that fails while it is made leaves its socket to the garbage collector, whose warning
    # would count against whichever test happens to run then.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
    return fault


def start_container(
    environ: Mapping[str, str] = os.environ,
) -> tuple[URL, Callable[[], None]]:
    """Return the superuser's URL of a new container, and what removes it again.

    The image is `TENANTRY_TEST_IMAGE`, by default `postgres:16`.

    Raises:
        DatabaseUnreachableError: the image cannot be had, or the server in it does not come up.
    """
    image = environ.get("TENANTRY_TEST_IMAGE", "").strip() or DEFAULT_IMAGE
    try:
        container = PostgresContainer(
            image, username="postgres", password=secrets.token_urlsafe(24), dbname="postgres"
        ).with_command(_FORGETFUL)
        try:
            container.start()
            return parse_url(container.get_connection_url()), container.stop
        except BaseException:
            container.stop()
            raise
    except (
        ConnectionError,
        ContainerStartException,
        DockerException,
        RequestException,
        TimeoutError,
    ) as error:
        raise DatabaseUnreachableError(
            f"no PostgreSQL container could be started from image {image!r}: {error}. Pull the "
            "image, name another in TENANTRY_TEST_IMAGE, or use --tenantry-server=embedded"
        ) from error

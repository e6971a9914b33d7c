"""PgBouncer between the tests and their server is real, and pools by transaction."""

from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.testing import Database


def test_two_clients_share_one_backend_in_turn(
    empty_database: Database, pgbouncer: Callable[..., URL]
) -> None:
    """A session-level setting of one client reaches the next: the leak that we defend against."""
    url = pgbouncer(empty_database.app_url, pool_size=1)
    with (
        closing(psycopg2.connect(libpq_url(url))) as first,
        closing(psycopg2.connect(libpq_url(url))) as second,
    ):
        assert backend(first) == backend(second)
        assert first.get_backend_pid() != backend(first)
        with first, first.cursor() as cursor:
            cursor.execute("select set_config('app.current_organization', 'first', false)")
        with second, second.cursor() as cursor:
            cursor.execute("select current_setting('app.current_organization', true)")
            assert cursor.fetchone() == ("first",)


def test_pooler_asks_for_the_password(
    empty_database: Database, pgbouncer: Callable[..., URL]
) -> None:
    """Whoever else is on the machine gets in through the pooler as little as past it."""
    url = pgbouncer(empty_database.app_url).set(password="wrong")
    with pytest.raises(psycopg2.OperationalError, match="authentication failed"):
        psycopg2.connect(libpq_url(url))


def backend(connection: psycopg2.extensions.connection) -> int:
    """Return the process that serves the connection's transaction."""
    with connection, connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        row = cursor.fetchone()
        assert row is not None
        pid: int = row[0]
        return pid

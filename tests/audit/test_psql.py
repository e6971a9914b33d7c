import re
import subprocess
from pathlib import Path

import pytest
from sqlalchemy.engine import URL
from tests.audit.conftest import OF_THE_DATABASE, OF_THE_SERVER, Audited
from tests.fixtures.psql import AUDIT, run_psql

from tenantry.audit import checks

BREAK = "alter table test_sets no force row level security"
SKIPPED = f"; not asked for: {OF_THE_SERVER}"


def psql(
    url: URL, *variables: str, stop: bool = True, script: Path = AUDIT
) -> subprocess.CompletedProcess[str]:
    """Run all checks but that of the server's version, which is no test's doing."""
    return run_psql(url, script, f"skip={OF_THE_SERVER}", *variables, stop=stop)


def found(output: str) -> list[tuple[str, str]]:
    return re.findall(r"^check_id +(.*)\n(?:.*\n){2}object +(.*)$", output, re.MULTILINE)


def test_isolated_database_prints_the_verdict_alone(app_url: URL) -> None:
    """Checks without findings print nothing."""
    done = psql(app_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(
        rf"ISOLATED: {len(OF_THE_DATABASE)} checks of \d+ tables, no fault found{SKIPPED}\n",
        done.stdout,
    )


def test_psql_finds_what_python_finds(audited: Audited) -> None:
    """The files are the same, and so are the findings, in the same order."""
    audited.broken_by(
        BREAK,
        "drop policy tests_tenant_wall on tests",
        "drop policy test_runs_tenant on test_runs",
        "create policy shared on test_runs for select using (true)",
        "grant truncate on endpoints to tenantry_app",
    )
    done = psql(audited.database.app_url)
    assert done.returncode == 3
    report = audited.audit()
    assert found(done.stdout) == [(each.check, each.object) for each in report.findings]
    assert len(report.findings) == 4
    assert done.stdout.endswith(
        f"NOT ISOLATED: 3 error-level findings, see above; notes: 1{SKIPPED}\n"
    )
    assert done.stderr.count("ERROR") == 1
    told = psql(audited.database.app_url, stop=False)
    assert (told.returncode, told.stdout) == (0, done.stdout)


def test_one_check_runs_alone(audited: Audited) -> None:
    """`-v check=ID`; an id that is none does not pass."""
    audited.broken_by(BREAK, "drop policy tests_tenant_wall on tests")
    done = psql(audited.database.app_url, "check=wall_missing")
    assert done.returncode == 3
    assert found(done.stdout) == [("wall_missing", "public.tests")]
    wrong = psql(audited.database.app_url, "check=nonsense")
    assert wrong.returncode == 3
    assert "NOT ISOLATED: there is no check nonsense" in wrong.stdout


def test_check_that_may_not_look_is_counted(audited: Audited) -> None:
    """The rest is run all the same, and the audit does not pass."""
    audited.broken_by("revoke select on pg_catalog.pg_default_acl from public", BREAK)
    blind = sorted(each.id for each in checks() if "pg_catalog.pg_default_acl " in each.query)
    done = psql(audited.database.app_url)
    assert done.returncode == 3
    assert (
        f"NOT ISOLATED: 1 error-level findings, see above; {len(blind)} checks could not look"
        in done.stdout
    )
    assert found(done.stdout) == [
        ("row_security_off", "public.test_sets"),
        *(("audit_limited", check_id) for check_id in blind),
    ]


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("tenant_column=tenant_id", "no table has the column tenant_id"),
        ("app_role=nobody at all", 'object      "nobody at all"'),
        ("root_table=customers", "object      customers"),
        ("schemas=public,absent", "object      absent"),
        ("id_type=nonsense", "object      nonsense"),
    ],
)
def test_names_that_lead_nowhere_do_not_pass(app_url: URL, variable: str, said: str) -> None:
    """An audit that saw nothing has not passed."""
    done = psql(app_url, variable)
    assert done.returncode == 3
    assert said in done.stdout


def test_options_of_the_connection_are_seen_and_do_no_harm(app_url: URL) -> None:
    """A tenant from the options is a finding; read-only sessions and odd quoting are none."""
    odd = "-c default_transaction_read_only=on -c quote_all_identifiers=on"
    assert psql(app_url.update_query_dict({"options": odd})).returncode == 0
    tenant = "-c app.current_organization=somebody"
    done = psql(app_url.update_query_dict({"options": tenant}))
    assert done.returncode == 3
    assert "this session begins with 'somebody'" in done.stdout


def test_server_that_is_too_old_is_refused(app_url: URL, tmp_path: Path) -> None:
    """Shown by raising the bound, since no such server is at hand."""
    script = tmp_path / "audit.sql"
    text = AUDIT.read_text()
    assert "150000" in text
    script.write_text(text.replace("150000", "990000"))
    for stop, status in ((True, 3), (False, 0)):
        done = psql(app_url, stop=stop, script=script)
        assert done.returncode == status
        assert done.stdout == (
            "PostgreSQL 15 or newer is needed, this server is older: nothing was looked at.\n"
        )
        assert done.stderr.count("ERROR") == 1


def test_skipped_checks_are_named_by_the_verdict(audited: Audited) -> None:
    """`-v skip=ID,ID`: what was not asked for did not pass unseen."""
    audited.broken_by(BREAK)
    skipped = f"{OF_THE_SERVER},row_security_off"
    done = psql(audited.database.app_url, f"skip={skipped}")
    assert (done.returncode, found(done.stdout)) == (0, [])
    assert done.stdout.endswith(f"; not asked for: {skipped}\n")


@pytest.mark.parametrize("id_type", ["", " ", "uuid(", "foo bar"])
@pytest.mark.parametrize("stop", [True, False])
def test_what_cannot_be_a_type_is_refused(app_url: URL, id_type: str, stop: bool) -> None:
    """The variable and the choices are named, and nothing is looked at."""
    done = psql(app_url, f"id_type={id_type}", stop=stop)
    assert (done.returncode, done.stdout) == (3 if stop else 0, "")
    assert "cannot be the name of a type: use uuid, bigint, integer or text" in done.stderr
    assert done.stderr.count("ERROR") == 1


def test_name_cannot_pass_for_the_verdict(audited: Audited) -> None:
    """Neither a line break nor the escape sequence of a terminal reaches the output as it is."""
    name = '"x\n\nISOLATED: 63 checks of 11 tables, no fault found\n\x1b[8m"'
    audited.broken_by(f"create table {name} (organization_id uuid not null)")
    done = psql(audited.database.app_url)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line.startswith("ISOLATED")] == []
    assert lines[-1].startswith("NOT ISOLATED: ")
    assert "\x1b" not in done.stdout
    assert "\\x1B[8m" in done.stdout

import subprocess
from pathlib import Path

import pytest
from tests.audit.conftest import OF_THE_DATABASE, Audited, MakeRole
from tests.fixtures.psql import run_psql
from typer.testing import CliRunner

from tenantry.audit import Finding, Report, Severity
from tenantry.audit.formats import render_script
from tenantry.cli import app

HOSTILE = 'public."a\n; drop table tests; --"'
SOMEBODY = "11111111-1111-1111-1111-111111111111"

# One fault a line, each found by another check.
FAULTS = (
    "alter table test_runs disable row level security",
    "drop policy tests_tenant_wall on tests",
    "alter policy tests_tenant on tests using (true) with check (true)",
    "drop policy test_configurations_tenant on test_configurations",
    "grant truncate on endpoints to tenantry_app",
    f"alter database {{database}} set app.current_organization = '{SOMEBODY}'",
    "alter table test_results add unique (id)",
    "create view all_tests as select * from tests; grant select on all_tests to tenantry_app",
    "alter role {role} bypassrls",
    "grant pg_read_server_files to {role}",
    "grant update on api_tokens to tenantry_authenticator",
    "grant select on users to public",
    "grant select on endpoints to tenantry_app with grant option",
    "grant create on schema public to public",
    "grant temporary on database {database} to public",
    "grant connect on database {database} to public",
    "alter role {role} set row_security = off",
    "alter role {role} createdb",
    "grant set on parameter session_replication_role to {role}",
    "grant execute on function pg_catalog.pg_terminate_backend(integer, bigint) to public",
    'alter database {database} reset app."current_user"',
    f"create table {HOSTILE} (organization_id uuid not null, id uuid not null,"
    " primary key (organization_id, id))",
    f"grant select on {HOSTILE} to tenantry_app",
    # What a person has to decide.
    "create policy shared on test_sets for select using (true)",
)


def applied(audited: Audited, script: Path) -> subprocess.CompletedProcess[str]:
    return run_psql(audited.database.superuser_url, script)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """Return where the script goes."""
    return tmp_path / "fix.sql"


def test_script_mends_many_faults_at_once(
    audited: Audited, make_role: MakeRole, script: Path
) -> None:
    """Applied by psql, it leaves only what has no statement; a name cannot end a comment."""
    role = make_role("in role tenantry_app")
    names = {"role": role, "database": audited.database.name}
    audited.broken_by(*(fault.format_map(names) for fault in FAULTS))
    before = audited.audit()
    mended = {finding.check for finding in before.findings if finding.statement is not None}
    assert len(mended) >= 15, sorted(mended)
    url = audited.database.app_url.render_as_string(hide_password=False)
    chosen = [f"--check={each}" for each in OF_THE_DATABASE]
    options = ["--url", url, "--fix", "--output", str(script), *chosen]
    done = CliRunner().invoke(app, ["audit", *options])
    assert (done.exit_code, done.stdout) == (1, f"{before.verdict}\n")
    mending = applied(audited, script)
    assert (mending.returncode, mending.stderr) == (0, "")
    left = {(finding.check, finding.object) for finding in audited.audit().findings}
    assert left <= {
        (finding.check, finding.object) for finding in before.findings if finding.statement is None
    }
    assert ("policy_contained", "shared on public.test_sets") in left


def test_script_says_what_it_does_before_it_does_it(audited: Audited, script: Path) -> None:
    """It begins with the database, the numbers and how to run it, and waits for no lock long."""
    audited.broken_by(
        "alter table test_sets no force row level security",
        "create policy shared on test_sets for select using (true)",
    )
    text = render_script(audited.audit())
    said, _, rest = text.partition("\nbegin;\n")
    assert all(line.startswith("-- ") for line in said.splitlines() if line)
    assert f"in the database {audited.database.name}," in said
    assert "1 finding in one transaction, 0 after it, 1 for a person to decide" in said
    assert "set local lock_timeout = '10s';" in rest
    decided = rest.partition("\ncommit;\n")[2]
    assert "-- note policy_contained: policy shared on public.test_sets: " in decided
    assert "--   To be decided: drop the policy" in decided


def test_script_is_all_or_nothing(audited: Audited, script: Path) -> None:
    """A statement that fails undoes those before it."""
    audited.broken_by(
        "alter table test_sets no force row level security",
        "alter table tests no force row level security",
    )
    before = audited.audit()
    script.write_text(render_script(before))
    audited.broken_by("alter table tests rename to examinations")
    assert applied(audited, script).returncode == 3
    audited.broken_by("alter table examinations rename to tests")
    assert audited.audit().findings == before.findings


def test_nothing_to_mend_is_a_script_of_comments(audited: Audited, script: Path) -> None:
    """It can be run all the same."""
    script.write_text(render_script(audited.audit()))
    assert all(line.startswith("--") for line in script.read_text().splitlines())
    assert applied(audited, script).returncode == 0


def finding(statement: str | None, name: str = "public.a") -> Finding:
    return Finding(
        check="a_check",
        severity=Severity.ERROR,
        object_type="table",
        object=name,
        problem="it is wrong",
        remedy="mend it",
        statement=statement,
    )


def test_statements_are_ordered_by_what_they_need() -> None:
    """Columns before keys before foreign keys; what no transaction may hold comes after it."""
    statements = [
        "create index concurrently i on public.a (organization_id);",
        "alter table public.b validate constraint f;",
        "alter table public.b add constraint f foreign key (a) references public.a;",
        "alter table public.a drop constraint k, add constraint k PRIMARY KEY (id);",
        "alter table public.a alter column organization_id set not null;",
        'alter table public."foreign key concurrently" force row level security;',
    ]
    report = Report(
        database="shop\n; drop table a",
        role="app",
        server_version="18",
        tables=2,
        checks=("a_check",),
        findings=tuple(finding(statement) for statement in (*statements, statements[4])),
    )
    text = render_script(report)
    together, _, after = text.partition("\ncommit;\n")
    code = [line for line in together.splitlines() if line and not line.startswith("--")]
    assert code == ["begin;", "set local lock_timeout = '10s';", *reversed(statements[1:])]
    assert [line for line in after.splitlines() if line and not line.startswith("--")] == [
        statements[0]
    ]

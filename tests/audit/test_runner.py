from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import connection as DriverConnection  # noqa: N812
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL
from sqlalchemy.pool import NullPool
from tests.audit.conftest import OF_THE_DATABASE, OF_THE_SERVER, Audited, MakeRole
from tests.conftest import RequireService

from tenantry.audit import (
    Allowance,
    AuditConfig,
    Baseline,
    Severity,
    assert_isolated,
    read_baseline,
    run_audit,
)
from tenantry.config import TenancyConfig, libpq_url
from tenantry.database import create_tenant_engine
from tenantry.exceptions import AuditError, ConfigurationError
from tenantry.testing import Database, Server
from tenantry.testing.administration import connected

BREAK = "alter table test_sets no force row level security"


def of_server(connection: DriverConnection) -> Baseline:
    """Return what allows the version of the server at hand, which is no test's doing."""
    report = run_audit(connection, only=[OF_THE_SERVER])
    return Baseline(
        tuple(
            Allowance(
                check=each.check,
                object=each.object,
                reason="the server at hand",
                found=each.fingerprint,
            )
            for each in report.findings
        )
    )


@pytest.fixture
def driver(app_url: URL) -> Iterator[DriverConnection]:
    """Yield a connection as the application's login."""
    with closing(psycopg2.connect(libpq_url(app_url))) as connection:
        yield connection


def test_migrated_database_has_no_finding(driver: DriverConnection) -> None:
    """What the migrations build passes every check, notes included."""
    report = run_audit(driver, only=OF_THE_DATABASE)
    assert (report.findings, report.unseen) == ((), ())
    assert (
        report.verdict
        == f"ISOLATED: {len(report.checks)} checks of {report.tables} tables, no fault found"
    )
    assert_isolated(driver, baseline=of_server(driver), at=Severity.NOTE)


def test_every_role_sees_the_same(audited: Audited, make_role: MakeRole) -> None:
    """The catalogs are all it takes: a stranger's report is the superuser's."""
    audited.broken_by(BREAK)
    stranger = make_role()
    expected = audited.audit().findings
    with closing(psycopg2.connect(libpq_url(audited.database.superuser_url))) as connection:
        assert run_audit(connection, only=OF_THE_DATABASE).findings == expected
        with connection.cursor() as cursor:
            cursor.execute(f"set role {stranger}")
        connection.commit()
        report = run_audit(connection, only=OF_THE_DATABASE)
    assert (report.role, report.findings) == (stranger, expected)


def test_connection_is_left_as_it_was(driver: DriverConnection) -> None:
    """Settings, isolation level and autocommit are the caller's, after a failure too."""
    shown = (
        "select current_setting('app.current_organization'), current_setting('search_path'), "
        "current_setting('transaction_isolation'), current_setting('transaction_read_only'), "
        "current_setting('jit'), current_setting('tenantry.tables', true)"
    )
    with driver.cursor() as cursor:
        cursor.execute("set app.current_organization = 'mine'; set search_path = public")
        cursor.execute("select set_config('tenantry.tables', 'mine', false)")
        cursor.execute(shown)
        before = cursor.fetchone()
        driver.commit()
        assert run_audit(driver, only=OF_THE_DATABASE).findings == ()
        with pytest.raises(ConfigurationError, match="there is no check 'nonsense'"):
            run_audit(driver, only=["nonsense"])
        assert not driver.autocommit
        cursor.execute(shown)
        assert cursor.fetchone() == before


def test_connection_in_a_transaction_is_refused(driver: DriverConnection, app_url: URL) -> None:
    """Neither driver's nor SQLAlchemy's transaction is ended behind the caller's back."""
    with driver.cursor() as cursor:
        cursor.execute("select 1")
    with pytest.raises(AuditError, match="outside a transaction"):
        run_audit(driver, only=OF_THE_DATABASE)
    engine = create_engine(app_url, poolclass=NullPool)
    with engine.connect() as connection:
        assert run_audit(connection, only=OF_THE_DATABASE).findings == ()
        connection.execute(text("select 1"))
        with pytest.raises(AuditError, match="outside a transaction"):
            run_audit(connection, only=OF_THE_DATABASE)


def test_tenant_engine_is_audited(audited: Audited) -> None:
    """Of the layer's own engine, also while filters are the only wall and guard its cursors."""
    audited.broken_by(BREAK)
    engine = create_tenant_engine(audited.database.app_url, mode="filters", poolclass=NullPool)
    try:
        with engine.connect() as connection:
            assert [
                each.check for each in run_audit(connection, only=OF_THE_DATABASE).findings
            ] == ["row_security_off"]
    finally:
        engine.dispose()


def test_assertion_lists_each_finding_with_its_statement(audited: Audited) -> None:
    """The message of a failed test is enough to mend the database."""
    audited.broken_by(BREAK)
    with closing(psycopg2.connect(libpq_url(audited.database.app_url))) as connection:
        with pytest.raises(AssertionError) as failed:
            assert_isolated(connection, baseline=of_server(connection))
        audited.broken_by("alter table test_sets force row level security")
        assert_isolated(connection, baseline=of_server(connection))
    assert str(failed.value).splitlines()[1:] == [
        "  error row_security_off: table public.test_sets: row security is not forced: it does not "
        "bind the owner",
        "    alter table public.test_sets enable row level security, force row level security;",
    ]


def test_baseline_allows_with_a_reason_and_says_what_is_stale(audited: Audited) -> None:
    """Allowed findings stay in the report; entries that allow nothing are named."""
    audited.broken_by(BREAK)
    [finding] = audited.audit().findings
    entries = [
        Allowance(
            check="row_security_off",
            object="public.test_sets",
            reason="until Monday",
            found=finding.fingerprint,
        ),
        Allowance(check="row_security_off", object="public.gone", reason="was there"),
        Allowance(check="no_such_check", object="public.test_sets", reason="typed wrong"),
    ]
    report = audited.audit(baseline=Baseline(tuple(entries)))
    assert (report.findings, report.fails()) == ((), False)
    assert [(each.finding.object, each.reason) for each in report.allowed] == [
        ("public.test_sets", "until Monday")
    ]
    assert [(each.allowance, each.why) for each in report.stale] == [
        (entries[1], "it has no such finding"),
        (entries[2], "there is no such check"),
    ]
    assert report.verdict.endswith("; allowed: 1")


GRAVER = {
    "attributes": (
        ("alter role {role} createrole",),
        ("alter role {role} superuser",),
    ),
    "privileges": (
        ("grant references (id) on test_sets to tenantry_app",),
        ("grant truncate on test_sets to tenantry_app",),
    ),
    "body of a function": (
        (
            "create function one() returns bigint language sql security definer"
            " set search_path = pg_catalog, pg_temp as 'select 1::bigint'",
            "revoke execute on function one() from public",
            "grant execute on function one() to tenantry_app",
        ),
        (
            "create or replace function one() returns bigint language sql security definer"
            " set search_path = pg_catalog, pg_temp as 'select count(*) from public.tests'",
        ),
    ),
    "text of a policy": (
        ("create policy x on test_sets for select using (name = 'public')",),
        ("alter policy x on test_sets using (true)",),
    ),
    "roles of a policy": (
        ("create policy x on test_sets for select to tenantry_owner using (true)",),
        ("alter policy x on test_sets to public",),
    ),
    "view": (
        ("create view shown as select 1 from tests", "grant select on shown to tenantry_app"),
        ("create or replace view shown as select 1 from users",),
    ),
    "what a role may do": (
        ("grant {other} to {role}", "grant select on maintenance_log to {other}"),
        ("alter role {other} createrole",),
    ),
}


@pytest.mark.parametrize("fault", GRAVER)
def test_graver_fault_of_the_same_object_is_not_allowed(
    audited: Audited, make_role: MakeRole, fault: str
) -> None:
    """An entry is for what was read and accepted, and says so when it is that no longer."""
    smaller, graver = GRAVER[fault]
    names = {"role": make_role("noinherit in role tenantry_app"), "other": make_role()}
    audited.broken_by(*(each.format_map(names) for each in smaller))
    accepted = Baseline(
        tuple(
            Allowance(check=each.check, object=each.object, reason="read", found=each.fingerprint)
            for each in audited.audit().findings
        )
    )
    assert accepted.allowances
    report = audited.audit(baseline=accepted)
    assert (report.findings, report.stale) == ((), ())
    audited.broken_by(*(each.format_map(names) for each in graver))
    report = audited.audit(baseline=accepted)
    assert report.findings
    assert "is no longer what was allowed: read the finding" in report.stale[0].why
    now = {each.fingerprint for each in report.findings}
    assert any(fingerprint in report.stale[0].why for fingerprint in now)


def test_entry_that_says_nothing_of_what_was_found_allows_nothing(audited: Audited) -> None:
    """As baselines of older versions; the report says what to add."""
    audited.broken_by(BREAK)
    entry = Allowance(check="row_security_off", object="public.test_sets", reason="until Monday")
    report = audited.audit(baseline=Baseline((entry,)))
    [finding] = report.findings
    [stale] = report.stale
    assert stale.why == (
        "it does not say what was found: read the finding, and if you allow it write "
        f'found = "{finding.fingerprint}"'
    )
    again = audited.audit(baseline=Baseline((replace(entry, found=finding.fingerprint),)))
    assert (again.findings, again.stale) == ((), ())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[[allow]]\ncheck = 'a'\nobject = 'b'", "must have check, object and reason"),
        ("[[allow]]\ncheck = 'a'\nobject = 'b'\nreason = ' '", "has no reason"),
        ("[[allow]]\ncheck = 'a'\nobject = 'b'\nreason = 'c'\n" * 2, "twice"),
        ("[[allowed]]\ncheck = 'a'", "holds allowed"),
        ("allow = 1", "holds no list"),
        ("nonsense", "cannot be read"),
    ],
)
def test_baseline_that_is_not_one_is_refused(tmp_path: Path, written: str, said: str) -> None:
    """A reason is mandatory, and nothing that was meant to allow is passed over."""
    path = tmp_path / "baseline.toml"
    path.write_text(written)
    with pytest.raises(ConfigurationError, match=said):
        read_baseline(path)


@pytest.mark.parametrize("id_type", ["bigint", "integer", "uuid"])
def test_another_projects_names_are_audited(
    tenantry_server: Server, require_service: RequireService, empty_database: Database, id_type: str
) -> None:
    """Column, id type, settings, role and schemas are the project's own, and hostile."""
    require_service(tenantry_server.superuser, "the server's administrator is no superuser")
    rule = f"\"Tenant's \"\"Id\" = nullif(current_setting('my.tenant', true), '')::{id_type}"
    names = TenancyConfig(
        tenant_column="Tenant's \"Id",
        id_type=id_type,  # type: ignore[arg-type]
        organization_setting="my.tenant",
        user_setting="my.user",
        app_role="tenantry_login",
        root_table="none",
    )
    with closing(psycopg2.connect(libpq_url(empty_database.owner_url))) as connection:
        with connected(empty_database.superuser_url) as cursor:
            for setting in ("my.tenant", 'my."user"'):
                cursor.execute(f"alter database {empty_database.name} set {setting} = ''")
        with connection, connection.cursor() as cursor:
            cursor.execute("alter default privileges revoke execute on functions from public")
            cursor.execute('create schema one; create schema "Two, \'\n"; create schema three')
            for table in ("one.select", '"Two, \'\n"."A ""b"', "three.a"):
                cursor.execute(f'create table {table} ("Tenant\'s ""Id" {id_type} not null)')
                cursor.execute(f"grant select, insert on {table} to tenantry_login")
            for table in ("one.select", '"Two, \'\n"."A ""b"'):
                cursor.execute(f"alter table {table} enable row level security")
                cursor.execute(f"alter table {table} force row level security")
                cursor.execute(f"create policy a on {table} using ({rule})")
                cursor.execute(f"create policy b on {table} as restrictive using ({rule})")
        some = run_audit(
            connection,
            AuditConfig(tenancy=names, schemas=("one", "Two, '\n")),
            only=OF_THE_DATABASE,
        )
        assert (some.findings, some.tables) == ((), 2)
        every = run_audit(connection, names, only=OF_THE_DATABASE)
        assert {each.object for each in every.findings} == {"three.a"}
        with connection, connection.cursor() as cursor:
            for finding in every.findings:
                cursor.execute(finding.statement or "")
        mended = run_audit(connection, names, only=OF_THE_DATABASE)
        assert (mended.findings, mended.tables) == ((), 3)

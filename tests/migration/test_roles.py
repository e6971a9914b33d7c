"""Who may migrate, on a server as somebody has it: a superuser, an owner, a login with little."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.engine import URL
from sqlalchemy.orm import Session
from tests.migration.conftest import ROOT, Execute, Psql, Result, RunAlembic, Site

from tenantry import create_tenant_engine, set_tenant
from tenantry.testing.roles import check_unprivileged

OWNERS = "select distinct tableowner::text from pg_tables where schemaname = 'public'"
UNTOUCHED = "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
A = "00000000-0000-0000-0000-00000000000a"


Migrate = Callable[..., Result]


@pytest.fixture
def migrate(run_alembic: RunAlembic) -> Migrate:
    """Return what runs `alembic upgrade head` as one login for another."""

    def run(owner: URL, app: URL, **variables: Any) -> Result:
        return run_alembic(
            "upgrade", "head", MIGRATION_DATABASE_URL=owner, DATABASE_URL=app, **variables
        )

    return run


def warnings(result: Result) -> list[str]:
    """Return the warnings that the command logged."""
    lines = result.stderr.splitlines()
    return [line.removeprefix("WARNING ") for line in lines if line.startswith("WARNING")]


def status(app: URL) -> dict[str, object]:
    """Return what `tenantry status` says of the application's login."""
    result = subprocess.run(
        [sys.executable, "-m", "tenantry.cli", "status", "--json"],
        env=os.environ | {"DATABASE_URL": app.render_as_string(hide_password=False)},
        capture_output=True,
        text=True,
        check=False,
    )
    found: dict[str, object] = json.loads(result.stdout)
    assert (result.returncode == 0) == found["enforced"], result.stderr
    return found


def assert_it_works(app: URL, execute: Execute) -> None:
    """Assert that the application's login is confined, and sees its own organization's rows."""
    found = status(app)
    assert found["enforced"], found["reasons"]
    check_unprivileged(app)
    engine = create_tenant_engine(app, mode="database")
    try:
        with Session(engine) as session:
            set_tenant(session, A)
            session.execute(text(f"insert into organizations (id, name) values ('{A}', 'A')"))
            session.commit()
            assert session.scalar(text("select count(*) from organizations")) == 1
        with engine.connect() as connection:
            assert connection.scalar(text("select count(*) from organizations")) == 0
    finally:
        engine.dispose()


def test_superuser_migrates_and_owns_nothing(
    site: Site, migrate: Migrate, execute: Execute
) -> None:
    """All objects belong to the owner role, the login is admitted, nothing is left to warn of."""
    app = site.login("web")
    result = migrate(site.superuser, app)
    assert (result.returncode, warnings(result)) == (0, []), result.stderr
    assert execute(site.superuser, OWNERS) == [("tenantry_owner",)]
    assert_it_works(app, execute)


def test_owner_with_createrole_migrates(site: Site, migrate: Migrate, execute: Execute) -> None:
    """What takes a superuser is told: BYPASSRLS, and the settings, which the layer then defines."""
    app = site.login("web")
    owner = site.owner("shop", "createrole")
    result = migrate(owner, app)
    assert result.returncode == 0, result.stderr
    maintenance, settings = warnings(result)
    assert maintenance.startswith("role tenantry_maintenance needs BYPASSRLS, which shop may not")
    assert settings.startswith("the settings are not defined for this database, which shop may")
    assert all('psql -f "$(tenantry sql roles)"' in line for line in (maintenance, settings))
    assert execute(site.superuser, OWNERS) == [("tenantry_owner",)]
    assert_it_works(app, execute)


@pytest.mark.parametrize("attributes", ["nocreaterole", "createrole"])
def test_migrator_that_a_dba_prepared_has_nothing_to_warn_of(
    site: Site, migrate: Migrate, execute: Execute, psql: Psql, attributes: str
) -> None:
    """After sql/roles.sql the migrator needs no privilege of its own; the settings are there."""
    app, migrator = site.login("tenantry_login"), site.login("tenantry_migrator")
    prepared = psql(site.superuser, "-f", str(ROOT / "sql" / "roles.sql"))
    assert prepared.returncode == 0, prepared.stderr
    execute(site.superuser, f"alter role tenantry_migrator {attributes}")
    result = migrate(migrator, app)
    assert (result.returncode, warnings(result)) == (0, []), result.stderr
    assert_it_works(app, execute)


def test_further_member_of_the_owner_migrates(
    site: Site, migrate: Migrate, execute: Execute, psql: Psql
) -> None:
    """Membership in the owner role is all that a second migrator needs."""
    app, second = site.login("tenantry_login"), site.login("second")
    assert psql(site.superuser, "-f", str(ROOT / "sql" / "roles.sql")).returncode == 0
    execute(site.superuser, "grant tenantry_owner to second")
    result = migrate(second, app)
    assert result.returncode == 0, result.stderr
    (settings,) = warnings(result)
    assert settings.startswith("the settings are not defined for this database, which second may")
    assert_it_works(app, execute)


def test_owner_without_createrole_is_told_of_the_script(
    site: Site, migrate: Migrate, execute: Execute
) -> None:
    """One line names the role, what it lacks and sql/roles.sql; the database stays as it was."""
    result = migrate(site.owner("shop"), site.login("web"))
    assert_refused(
        result, "role 'shop' may not migrate this database", 'psql -f "$(tenantry sql roles)"'
    )
    assert execute(site.superuser, UNTOUCHED) == [(0,)]


@pytest.mark.parametrize("attributes", ["", "createrole", "superuser"])
def test_application_may_not_migrate(
    site: Site, migrate: Migrate, execute: Execute, attributes: str
) -> None:
    """Whoever migrates can become the owner, so the application's login may not migrate."""
    app = site.login("web", attributes)
    execute(site.superuser, f"alter database {app.database} owner to web")
    result = migrate(app, app)
    assert_refused(result, "web is the login of the application")
    assert execute(site.superuser, UNTOUCHED) == [(0,)]
    execute(site.superuser, "alter role web nosuperuser")


def test_application_may_not_migrate_what_is_migrated_already(
    site: Site, migrate: Migrate, execute: Execute
) -> None:
    """With the wrong URL in place, the version table is not its to read."""
    app = site.login("web")
    assert migrate(site.superuser, app).returncode == 0
    assert_refused(migrate(app, app), "role 'web' may not migrate this database")


def test_login_that_is_missing_is_told_and_admitted_later(
    site: Site, migrate: Migrate, execute: Execute
) -> None:
    """The order in which logins and tables are made does not matter."""
    absent = site.superuser.set(username="web", password="none")
    result = migrate(site.superuser, absent)
    assert result.returncode == 0, result.stderr
    assert warnings(result) == [
        'login web is no member of tenantry_app yet: role "web" does not exist. '
        "Mend that, then: grant tenantry_app to web"
    ]
    app = site.login("web")
    execute(site.superuser, "grant tenantry_app to web")
    assert_it_works(app, execute)


def test_maintenance_login_of_the_environment_is_admitted(
    site: Site, migrate: Migrate, execute: Execute
) -> None:
    """MAINTENANCE_DATABASE_URL names who may work across tenants, where the migrator may say so."""
    ops = site.login("ops")
    result = migrate(site.superuser, site.login("web"), MAINTENANCE_DATABASE_URL=ops)
    assert (result.returncode, warnings(result)) == (0, []), result.stderr
    acting = "select rolbypassrls from pg_roles where rolname = current_user"
    assert execute(ops, "set role tenantry_maintenance", acting) == [(True,)]


def test_public_stays_without_what_it_lost(
    site: Site, run_alembic: RunAlembic, execute: Execute
) -> None:
    """After a downgrade to base PUBLIC has neither TEMPORARY nor CREATE back."""
    execute(site.superuser, "grant create on schema public to public")
    urls: dict[str, Any] = {
        "MIGRATION_DATABASE_URL": site.superuser,
        "DATABASE_URL": site.login("web"),
    }
    held = (
        "select has_database_privilege('public', current_database(), 'temporary'),"
        " has_schema_privilege('public', 'public', 'create')"
    )
    assert execute(site.superuser, held) == [(True, True)]
    assert run_alembic("upgrade", "head", **urls).returncode == 0
    assert run_alembic("downgrade", "base", **urls).returncode == 0
    assert execute(site.superuser, held) == [(False, False)]


def assert_refused(result: Result, *parts: str) -> None:
    """Assert one clear error: a FAILED line with these parts, a status, no traceback."""
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    message = " ".join(result.stdout.split())
    assert message.startswith("FAILED: ")
    for part in parts:
        assert part in message

"""`.env.example` as a person would use it, and whom a migration admits."""

import re
from pathlib import Path

import pytest
from dotenv import dotenv_values
from sqlalchemy.engine import URL

import assay.config
from tenantry import Settings
from tenantry.alembic.environment import _destination
from tenantry.alembic.operations import MigrationLogins

EXAMPLE = Path(__file__).parents[2] / ".env.example"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Empty the variables, which then win over a developer's .env."""
    for name in ("DATABASE_URL", "MIGRATION_DATABASE_URL", "MAINTENANCE_DATABASE_URL"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("TENANTRY_ENV", "")
    return monkeypatch


def test_example_sets_nothing_until_it_is_edited() -> None:
    """A copy of the file as it is means the embedded server, like no file at all."""
    assert not dotenv_values(EXAMPLE)


def test_example_holds_valid_values_for_each_setting(tmp_path: Path) -> None:
    """With each comment sign taken away the settings are complete and can be read."""
    edited = tmp_path / ".env"
    edited.write_text(re.sub(r"^#(?=[A-Z_]+=)", "", EXAMPLE.read_text(), flags=re.MULTILINE))
    values = {name: value or "" for name, value in dotenv_values(edited).items()}
    assert list(values) == [
        "DATABASE_URL",
        "MIGRATION_DATABASE_URL",
        "MAINTENANCE_DATABASE_URL",
        "TENANTRY_ENV",
        "TENANTRY_MODE",
        "TENANTRY_SCOPE",
        "TENANTRY_CONTEXT",
        "BROKER_URL",
        "CELERY_RESULT_BACKEND",
        "TENANTRY_TASK_KEY",
        "APP_PASSWORD",
        "OWNER_PASSWORD",
        "MAINTENANCE_PASSWORD",
        "POSTGRES_PASSWORD",
        "ASSAY_HTTP_HOSTS",
        "ASSAY_ALLOWED_NETWORKS",
        "ASSAY_LIMITS_STORAGE",
        "ASSAY_FAILED_LOGINS",
        "ASSAY_REQUESTS_PER_TOKEN",
        "ASSAY_LARGEST_BODY",
        "ASSAY_LARGEST_IMPORT",
        "ASSAY_MOST_TESTS",
        "ASSAY_JWT_ISSUER",
        "ASSAY_JWT_AUDIENCE",
        "ASSAY_JWT_JWKS_URL",
        "ASSAY_JWT_ALGORITHMS",
        "ASSAY_JWT_ORGANIZATION_CLAIM",
        "ASSAY_JWT_USER_CLAIM",
    ]
    settings = Settings.from_environment(values)
    assert settings.database_url is not None
    assert settings.database_url.username == "tenantry_login"
    assert settings.migration_database_url is not None
    assert settings.maintenance_database_url is not None
    assert settings.broker_url is not None
    api = assay.config.Settings.from_environment(values).api
    assert api.limits_storage == "redis://localhost:6379/2"
    assert api.identity_provider is not None
    # What the file proposes is what is so without it.
    unset = assay.config.ApiPolicy()
    for name in ("failed_logins", "requests", "largest_body", "largest_import", "most_tests"):
        assert getattr(api, name) == getattr(unset, name)


def test_program_that_passes_a_url_is_not_read_from_the_environment(
    environment: pytest.MonkeyPatch,
) -> None:
    """The logins admitted are those of the URLs passed beside it, and nobody else's."""
    environment.setenv("DATABASE_URL", "postgresql://stranger@elsewhere/d")
    url = URL.create("postgresql+psycopg2", "owner", host="h", database="d")
    assert _destination({"url": url}, offline=False) == (url, MigrationLogins())
    attributes = {
        "url": url,
        "application_url": url.set(username="web"),
        "maintenance_url": url.set(username="ops"),
    }
    assert _destination(attributes, offline=True) == (None, MigrationLogins(("web",), ("ops",)))


def test_script_admits_the_logins_of_the_environment(environment: pytest.MonkeyPatch) -> None:
    """`--sql` needs no migrator, and without DATABASE_URL admits the embedded server's login."""
    assert _destination({}, offline=True) == (None, MigrationLogins(("tenantry_login",)))
    environment.setenv("DATABASE_URL", "postgresql://web@h/d")
    environment.setenv("MAINTENANCE_DATABASE_URL", "postgresql://ops@h/d")
    assert _destination({}, offline=True) == (None, MigrationLogins(("web",), ("ops",)))

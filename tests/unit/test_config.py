"""Names and environment are checked when they are read, and no error tells a password."""

from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tenantry import ConfigurationError, Settings, TenancyConfig
from tenantry.config import libpq_url, parse_url

URL = "postgresql+psycopg2://app:s3cret@db.example:5433/product"


def test_defaults_are_the_documented_ones() -> None:
    """Without a word of configuration the names are those of the documentation."""
    config = TenancyConfig()
    assert config.organization_setting == "app.current_organization"
    assert config.user_setting == "app.current_user"
    assert (config.tenant_column, config.root_table) == ("organization_id", "organizations")
    assert config.id_type == "uuid"


@pytest.mark.parametrize(
    "name",
    ["", "app", "app.", ".x", "app.1x", "app.a b", "app.x'; --", 'app."x"', "app.x\n", "ä.b"],
)
def test_setting_that_postgresql_would_not_take_is_refused(name: str) -> None:
    """A setting's name goes into SQL text, so it is checked before."""
    with pytest.raises(ConfigurationError, match="setting"):
        TenancyConfig(organization_setting=name)
    with pytest.raises(ConfigurationError, match="setting"):
        TenancyConfig(user_setting=name)


def test_settings_must_differ() -> None:
    """Organization and user in one setting would overwrite each other."""
    with pytest.raises(ConfigurationError, match="cannot share"):
        TenancyConfig(organization_setting="app.x", user_setting="app.x")


@pytest.mark.parametrize("name", ["", "x" * 64, "é" * 32, "a\x00b"])
@pytest.mark.parametrize(
    "field", ["tenant_column", "root_table", "owner_role", "app_role", "maintenance_role"]
)
def test_name_that_is_no_identifier_is_refused(field: str, name: str) -> None:
    """Names are 1 to 63 bytes; a longer one would be cut off silently."""
    with pytest.raises(ConfigurationError, match="identifier"):
        TenancyConfig(**{field: name})  # type: ignore[arg-type]


def test_unusual_names_are_allowed() -> None:
    """Whatever PostgreSQL can quote is a name."""
    assert TenancyConfig(tenant_column='wei"rd name').tenant_column == 'wei"rd name'
    assert TenancyConfig(organization_setting="a.b.c$1").organization_setting == "a.b.c$1"


def test_unknown_id_type_is_refused() -> None:
    """An id type that the policies could not cast to is an error."""
    with pytest.raises(ConfigurationError, match="id_type"):
        TenancyConfig(id_type="text")  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_driver_is_written_out(scheme: str) -> None:
    """A URL without a driver means psycopg2, whichever SQLAlchemy reads it."""
    url = parse_url(URL.replace("postgresql+psycopg2", scheme))
    assert url.drivername == "postgresql+psycopg2"
    assert url.password == "s3cret"


def test_application_may_have_either_synchronous_driver() -> None:
    """DATABASE_URL keeps psycopg 3; what migrates and maintains reads the same URL by psycopg2."""
    url = URL.replace("psycopg2", "psycopg")
    names = ("DATABASE_URL", "MIGRATION_DATABASE_URL", "MAINTENANCE_DATABASE_URL")
    settings = Settings.from_environment(dict.fromkeys(names, url))
    assert settings.database_url == make_url(url)
    assert settings.migration_database_url == make_url(URL)
    assert settings.maintenance_database_url == make_url(URL)


def test_asynchronous_driver_is_accepted_where_any_is() -> None:
    """Commands that go through libpq take the application's URL as it is."""
    url = URL.replace("psycopg2", "asyncpg")
    settings = Settings.from_environment({"DATABASE_URL": url}, drivers=None)
    assert settings.database_url == make_url(url)
    for name in ("DATABASE_URL", "MIGRATION_DATABASE_URL", "MAINTENANCE_DATABASE_URL"):
        with pytest.raises(ConfigurationError, match=f"{name} names the driver"):
            Settings.from_environment({name: url})
    with pytest.raises(ConfigurationError, match="--url names the driver 'mysql'"):
        parse_url("mysql://h/d", name="--url", drivers=None)


@pytest.mark.parametrize(
    "text",
    [
        "s3cret",
        "://s3cret",
        "mysql://app:s3cret@db/x",
        "postgresql+asyncpg://app:s3cret@db/x",
        "postgresql://app:s3cret@db:port/x",
    ],
)
def test_url_that_cannot_be_used_is_not_repeated(text: str) -> None:
    """The error names the variable and what to write, and not the text, which has a password."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL") as caught:
        parse_url(text, name="DATABASE_URL")
    assert "s3cret" not in str(caught.value)


def test_libpq_reads_what_sqlalchemy_wrote() -> None:
    """Special characters survive on the way to psql."""
    url = make_url(URL).set(password="p@ss/w:rd %", database="pro duct")
    url = url.update_query_dict({"options": "-c search_path=a b"})
    text = libpq_url(url)
    assert text.startswith("postgresql://app:p%40ss%2Fw%3Ard")
    assert "/pro%20duct?options=-c%20search_path%3Da%20b" in text


def test_empty_environment_means_the_embedded_server() -> None:
    """Nothing set is development with everything by default."""
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.database_url is None
    assert (settings.environment, settings.mode, settings.scope) == ("development", "auto", "auto")


def test_environment_is_read() -> None:
    """Each variable ends up where it belongs; case and blanks around do not matter."""
    settings = Settings.from_environment(
        {
            "TENANTRY_ENV": " Production ",
            "TENANTRY_MODE": "BOTH",
            "TENANTRY_SCOPE": "transaction",
            "DATABASE_URL": f" {URL} ",
            "MIGRATION_DATABASE_URL": URL.replace("app", "owner"),
            "MAINTENANCE_DATABASE_URL": URL.replace("app", "ops"),
        }
    )
    assert (settings.environment, settings.mode, settings.scope) == (
        "production",
        "both",
        "transaction",
    )
    assert settings.database_url == make_url(URL)
    assert settings.migration_database_url is not None
    assert settings.migration_database_url.username == "owner"
    assert settings.maintenance_database_url is not None


@pytest.mark.parametrize(
    "name", ["TENANTRY_ENV", "TENANTRY_MODE", "TENANTRY_SCOPE", "TENANTRY_CONTEXT"]
)
def test_misspelt_choice_is_refused(name: str) -> None:
    """A value that is no choice is an error which lists the choices."""
    with pytest.raises(ConfigurationError, match=f"{name} is 'of': use one of"):
        Settings.from_environment({name: "of"})


def test_production_needs_a_url() -> None:
    """The embedded server is never production's by accident."""
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        Settings.from_environment({"TENANTRY_ENV": "production"})
    with pytest.raises(ConfigurationError, match="DATABASE_URL is not set"):
        Settings.from_environment({"TENANTRY_ENV": "production", "DATABASE_URL": "  "})


def test_settings_do_not_print_passwords() -> None:
    """A value that ends up in a log shows no password."""
    settings = Settings.from_environment({"DATABASE_URL": URL, "MIGRATION_DATABASE_URL": URL})
    assert "s3cret" not in repr(settings)


def test_process_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` is found from a sub-folder, and a variable of the process overrides it."""
    (tmp_path / ".env").write_text("TENANTRY_MODE=both\nTENANTRY_SCOPE=session\n")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    for name in ("DATABASE_URL", "TENANTRY_ENV", "TENANTRY_SCOPE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TENANTRY_MODE", "filters")
    settings = Settings.from_environment()
    assert (settings.mode, settings.scope) == ("filters", "session")

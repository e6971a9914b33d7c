from tests.audit.conftest import Audited

SERVER = '"far ""s\'\n"'


def test_extension_reaches_out(audited: Audited) -> None:
    """Everybody may execute dblink's functions where it is installed."""
    audited.broken_by("create extension dblink")
    found = audited.finds("extension_reaches_out", "dblink")
    assert found.object_type == "extension"
    audited.mended()


def test_foreign_server_is_found(audited: Audited) -> None:
    """With a user mapping for PUBLIC of a superuser, dblink showed the rows of all tenants."""
    audited.broken_by(
        "create foreign data wrapper w",
        f"create server {SERVER} foreign data wrapper w",
        f"create user mapping for public server {SERVER}",
    )
    assert audited.audit().findings == ()
    audited.broken_by(f"grant usage on foreign server {SERVER} to tenantry_app")
    found = audited.finds("extension_reaches_out", SERVER)
    assert "a user mapping logs in" in found.problem
    audited.mended()


def test_extension_that_is_closed_passes(audited: Audited) -> None:
    """In a schema that the application does not get into; others reach nothing."""
    audited.broken_by(
        "create schema closed",
        "create extension dblink schema closed",
        "create extension citext",
        "create foreign data wrapper w",
        f"create server {SERVER} foreign data wrapper w",
        f"grant usage on foreign server {SERVER} to tenantry_maintenance",
    )
    assert audited.audit().findings == ()


def test_renamed_function_is_found(audited: Audited) -> None:
    """A name may be any: the code that runs is the same."""
    audited.broken_by(
        "create extension dblink",
        "revoke execute on all functions in schema public from public",
        "alter function dblink(text, text) rename to remote",
        "grant execute on function remote(text, text) to tenantry_app",
    )
    audited.finds("extension_reaches_out", "dblink")
    audited.mended()

import pytest
from tests.audit.conftest import Audited, MakeRole


@pytest.mark.parametrize(
    ("grant", "found"),
    [
        ("grant truncate, select on tables to tenantry_app", "tables of tenantry_owner"),
        ("grant all on tables to tenantry_login", "tables of tenantry_owner"),
        ("grant select on tables to public", "tables of tenantry_owner"),
        ("in schema public grant references on tables to tenantry_app", "in public"),
        ("in schema public grant execute on functions to public", "functions of tenantry_owner in"),
        ("grant usage on sequences to public", "sequences of tenantry_owner"),
        ("grant all on sequences to tenantry_app", "sequences of tenantry_owner"),
        ("grant create on schemas to tenantry_app", "schemas of tenantry_owner"),
    ],
)
def test_default_privileges_open(audited: Audited, grant: str, found: str) -> None:
    """What the next table, sequence, function or schema would give away."""
    audited.broken_by(f"alter default privileges for role tenantry_owner {grant}")
    findings = audited.audit().findings
    assert [each.check for each in findings] == ["default_privileges_open"]
    assert found in findings[0].object
    audited.finds("default_privileges_open", findings[0].object)
    audited.mended()


def test_next_table_has_what_was_found(audited: Audited) -> None:
    """The harm: nobody grants anything, and the application may empty the new table."""
    audited.broken_by(
        "alter default privileges for role tenantry_owner grant all on tables to tenantry_app",
        "set role tenantry_owner",
        'create table "select" (number integer)',
    )
    audited.finds(
        "default_privileges_open",
        "tables of tenantry_owner",
        besides=(("shared_table_writable", 'public."select"'),),
    )
    audited.mended()


@pytest.mark.parametrize(
    "grant",
    [
        "grant select, insert, update, delete on tables to tenantry_app",
        "grant execute on functions to tenantry_app",
        "grant usage on schemas to tenantry_app",
        "grant usage on types to public",
        "grant all on tables to tenantry_maintenance",
    ],
)
def test_what_ends_at_the_wall_is_not_found(audited: Audited, grant: str) -> None:
    """The four commands are what policies are for; other roles are their own affair."""
    audited.broken_by(f"alter default privileges for role tenantry_owner {grant}")
    assert audited.audit().findings == ()


def test_names_are_quoted(audited: Audited, make_role: MakeRole) -> None:
    """The schema's name reaches the statement as it is."""
    owner = make_role()
    audited.broken_by(
        'create schema "A \'b\n""c"',
        f'alter default privileges for role {owner} in schema "A \'b\n""c"'
        " grant trigger on tables to tenantry_app",
    )
    audited.finds("default_privileges_open", f'tables of {owner} in "A \'b\n""c"')
    audited.mended()

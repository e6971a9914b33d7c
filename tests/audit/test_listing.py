import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.fixtures.psql import AUDIT, run_psql

from tenantry.audit import Severity
from tenantry.audit.listing import COMMANDS, Protection

WRONG = "create policy wrong on tests for select using (true)"
NO_WALL = "drop policy tests_tenant_wall on tests"


def cells(audited: Audited, table: str = "public.tests") -> dict[str, str]:
    """Return each command's protection of the table, and why."""
    (row,) = (row for row in audited.audit().matrix if row.table == table)
    assert tuple(cell.command for cell in row.cells) == COMMANDS
    return {cell.command: f"{cell.protection} {cell.why}".strip() for cell in row.cells}


def test_migrated_database_is_walled_or_closed(audited: Audited) -> None:
    """Whatever the application may do is held by a wall."""
    report = audited.audit()
    assert len(report.matrix) == report.tables > 5
    for row in report.matrix:
        assert {cell.protection for cell in row.cells} == {Protection.WALLED, Protection.CLOSED}
        assert (row.row_security, row.granted_to, row.owner) == (
            "forced",
            "tenantry_app",
            "tenantry_owner",
        )
    assert [(role.role, role.can_become) for role in report.roles] == [
        ("tenantry_app", ""),
        ("tenantry_login", "tenantry_app"),
    ]


@pytest.mark.parametrize(
    ("statements", "changed"),
    [
        (
            ["alter table tests disable row level security"],
            dict.fromkeys(COMMANDS[:4], "open row security is off"),
        ),
        ([NO_WALL], dict.fromkeys(COMMANDS[:4], "thin no wall")),
        (
            ["alter policy tests_tenant_wall on tests to tenantry_app"],
            dict.fromkeys(COMMANDS[:4], "thin no wall"),
        ),
        (
            [NO_WALL, WRONG],
            {
                "select": "open it is otherwise in wrong",
                **dict.fromkeys(COMMANDS[1:4], "thin no wall"),
            },
        ),
        ([WRONG], {}),
        (
            ["drop policy tests_tenant on tests"],
            dict.fromkeys(COMMANDS[:4], "closed no policy lets a row through"),
        ),
        (
            ["grant truncate, references (id) on tests to tenantry_login"],
            dict.fromkeys(COMMANDS[4:6], "open row security does not cover it"),
        ),
        (["revoke delete on tests from tenantry_app"], {"delete": "closed"}),
        (["alter table tests add unique (id)"], {"keys": "thin without the tenant: tests_id_key"}),
    ],
)
def test_each_fault_is_seen_in_its_cells_alone(
    audited: Audited, statements: list[str], changed: dict[str, str]
) -> None:
    """What the matrix says of a command changes with what protects it."""
    before = cells(audited)
    audited.broken_by(*statements)
    assert cells(audited) == {**before, **changed}


def test_roles_above_row_security_open_what_they_hold(
    audited: Audited, make_role: MakeRole
) -> None:
    """A wall does not hold a role with BYPASSRLS, and the matrix names it."""
    role = make_role("bypassrls in role tenantry_app")
    held = cells(audited)
    assert {held[command] for command in COMMANDS[:4]} == {
        f"open row security does not hold {role}"
    }
    (listed,) = (each for each in audited.audit().roles if each.role == role)
    assert (listed.attributes, listed.can_become) == ("no login, BYPASSRLS", "tenantry_app")


def test_what_is_open_is_an_error_among_the_findings(audited: Audited) -> None:
    """The matrix is no second opinion: whatever it calls open, a check has found."""
    audited.broken_by(
        "alter table tests disable row level security",
        "drop policy test_sets_tenant_wall on test_sets",
        "alter policy test_sets_tenant on test_sets using (true)",
        "grant truncate on endpoints to tenantry_app",
    )
    report = audited.audit()
    opened = {
        row.table
        for row in report.matrix
        for cell in row.cells
        if cell.protection is Protection.OPEN
    }
    named = " ".join(each.object for each in report.findings if each.severity is Severity.ERROR)
    assert opened == {"public.tests", "public.test_sets", "public.endpoints"}
    assert all(table in named for table in opened)


def test_listing_that_may_not_be_read_is_named(audited: Audited) -> None:
    """The report says that the matrix is missing, and why; the roles are listed all the same."""
    audited.broken_by("revoke select on pg_catalog.pg_index from public")
    report = audited.audit()
    assert report.matrix == ()
    assert len(report.roles) == 2
    assert [each.partition(":")[0] for each in report.unlisted] == ["matrix"]


def test_psql_lists_the_same(audited: Audited) -> None:
    """`-v list=on` prints tables and roles, above the findings, and changes nothing else."""
    audited.broken_by(NO_WALL)

    listed = run_psql(audited.database.app_url, AUDIT, "list=on", stop=False).stdout
    plain = run_psql(audited.database.app_url, AUDIT, stop=False).stdout
    assert listed.endswith(plain)
    rows = [
        [part.strip() for part in line.split("|")]
        for line in listed.removesuffix(plain).splitlines()
        if "|" in line
    ]
    report = audited.audit()
    expected = [
        [row.table, *(": ".join(filter(None, (cell.protection, cell.why))) for cell in row.cells)]
        for row in report.matrix
    ]
    assert [row[:8] for row in rows if len(row) > 8][1:] == expected
    assert [row[0] for row in rows if len(row) == 3][1:] == [each.role for each in report.roles]

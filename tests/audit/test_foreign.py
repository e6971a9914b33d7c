"""Databases that have never seen this project, with their own names for everything."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import starmap
from secrets import token_hex

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812
from sqlalchemy.engine import URL
from tests.audit.conftest import OF_THE_DATABASE, OF_THE_SERVER
from tests.conftest import RequireService
from tests.fixtures.psql import AUDIT, run_psql

from tenantry.audit import AuditConfig, Report, run_audit
from tenantry.config import DEFAULT_CONFIG, TenancyConfig, libpq_url
from tenantry.testing import Database
from tenantry.testing.administration import connected

COLUMNS = (
    "check_id",
    "severity",
    "object_type",
    "object",
    "problem",
    "remedy",
    "statement",
)
RECORD = re.compile(
    "^" + "\n".join(rf"{column} +(.*?)" for column in COLUMNS) + r"\n(?= *\n|NOT |ISOLATED)",
    re.MULTILINE | re.DOTALL,
)
INDENT = "\n" + " " * (len("object_type") + 1)


def quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


@dataclass(frozen=True, kw_only=True)
class Site:
    """Somebody's database: how it calls things."""

    column: str
    id_type: str
    setting: str
    schemas: tuple[str, str]
    items: str
    root: str | None = None

    @property
    def rule(self) -> str:
        """Return the one rule, as one writes it."""
        cast = "" if self.id_type == "text" else f"::{self.id_type}"
        return f"{quoted(self.column)} = {self.value}{cast}"

    @property
    def value(self) -> str:
        """Return what the setting says."""
        return f"nullif(current_setting('{self.setting}', true), '')"


SITES = {
    "tenant_id integer": Site(
        column="tenant_id",
        id_type="integer",
        setting="my.tenant",
        schemas=("shop", "billing"),
        items="items",
    ),
    "account_id bigint, mixed case": Site(
        column="AccountId",
        id_type="bigint",
        setting="app.Account",
        schemas=("Shop", "shop"),
        items="OrderLines",
        root="Accounts",
    ),
    "text, hostile": Site(
        column='Tenant\'s "Id"\n',
        id_type="text",
        setting="a.b.tenant$1",
        schemas=("Two, '\n", 'x"; drop schema public; --'),
        items='<b>\\ "items"\n; --',
    ),
    "uuid": Site(
        column="organization_id",
        id_type="uuid",
        setting="app.current_organization",
        schemas=("select", "from"),
        items="table",
        root="organizations",
    ),
}


class Foreign:
    """A site's database, and the roles that look at it."""

    def __init__(self, site: Site, database: Database, roles: dict[str, str]) -> None:
        self.site = site
        self.database = database
        self.roles = roles
        self._connections: dict[str, Connection] = {}
        self.config = AuditConfig(
            tenancy=TenancyConfig(
                tenant_column=site.column,
                organization_setting=site.setting,
                user_setting="my.user",
                root_table=site.root or DEFAULT_CONFIG.root_table,
                app_role=roles["app"],
            ),
            id_type=site.id_type,
            root_required=site.root is not None,
        )

    def table(self, schema: int, name: str | None = None) -> str:
        """Return a table's name, quoted where PostgreSQL would not read it as it is."""
        return f"{quoted(self.site.schemas[schema])}.{quoted(name or self.site.items)}"

    def url(self, looker: str) -> URL:
        """Return the URL of who looks."""
        if looker == "superuser":
            return self.database.superuser_url
        return self.database.superuser_url.set(username=self.roles[looker], password="secret")

    def connection(self, looker: str) -> Connection:
        """Return a connection of this role's, which stays open."""
        if looker not in self._connections:
            connection = psycopg2.connect(libpq_url(self.url(looker)))
            connection.autocommit = True
            self._connections[looker] = connection
        return self._connections[looker]

    def close(self) -> None:
        """Close what is open."""
        for connection in self._connections.values():
            connection.close()

    def execute(self, *statements: str) -> None:
        """Execute the statements as a superuser."""
        with self.connection("superuser").cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def audit(self, looker: str = "app") -> Report:
        """Return what Python finds."""
        return run_audit(self.connection(looker), self.config, only=OF_THE_DATABASE)

    def told(self, looker: str = "app") -> list[tuple[str | None, ...]]:
        """Return what psql finds: the seven columns of each finding."""
        given = {
            "tenant_column": self.site.column,
            "id_type": self.site.id_type,
            "organization_setting": self.site.setting,
            "user_setting": "my.user",
            "app_role": self.roles["app"],
            "skip": OF_THE_SERVER,
        }
        if self.site.root is not None:
            given["root_table"] = self.site.root
        variables = starmap("{}={}".format, given.items())
        done = run_psql(self.url(looker), AUDIT, *variables, stop=False)
        return [
            tuple(
                # What follows a line break in a name is indented.
                None if value == "none: somebody has to decide" else value.replace(INDENT, "\n")
                for value in record
            )
            for record in RECORD.findall(done.stdout)
        ]


def build(foreign: Foreign) -> None:
    """Make tables that are isolated as they should be: equal names in two schemas, partitions."""
    site, owner, app = foreign.site, foreign.roles["owner"], foreign.roles["app"]
    column, database = quoted(site.column), foreign.database.name
    setting = ".".join(quoted(part) for part in site.setting.split("."))
    statements = [
        f"alter default privileges for role {owner} revoke execute on functions from public",
        f"alter database {database} set {setting} = ''",
        f"alter database {database} set my.\"user\" = ''",
        *(f"grant connect on database {database} to {role}" for role in foreign.roles.values()),
    ]
    walled = []
    for position, schema in enumerate(site.schemas):
        name, other = foreign.table(position), foreign.table(position, "select")
        statements += [
            f"create schema {quoted(schema)} authorization {owner}",
            f"grant usage on schema {quoted(schema)} to {app}",
            f"create table {name} ({column} {site.id_type} not null, id uuid, note text, "
            f"primary key ({column}, id))",
            f"create table {other} ({column} {site.id_type} not null, id uuid, item uuid not null, "
            f"primary key ({column}, id), "
            f"foreign key ({column}, item) references {name} ({column}, id))",
            f"create index on {other} ({column}, item)",
        ]
        walled += [(name, column), (other, column)]
    parted = foreign.table(0, "Parted of 2")
    statements.append(
        f"create table {parted} ({column} {site.id_type} not null, id uuid, "
        f"primary key ({column}, id)) partition by hash ({column})"
    )
    for number in (0, 1):
        part = foreign.table(0, f"part {number}")
        statements.append(
            f"create table {part} partition of {parted} "
            f"for values with (modulus 2, remainder {number})"
        )
        statements.append(f"alter table {part} owner to {owner}")
    walled.append((parted, column))
    if site.root is not None:
        root = foreign.table(0, site.root)
        statements.append(f"create table {root} (id {site.id_type} primary key, name text)")
        walled.append((root, "id"))
    for table, compared in walled:
        rule = site.rule.replace(column, compared, 1)
        statements += [
            f"alter table {table} enable row level security, force row level security",
            f"create policy mine on {table} using ({rule})",
            f'create policy "the ""wall""" on {table} as restrictive using ({rule})',
            f"grant select, insert, update, delete on {table} to {app}",
            f"alter table {table} owner to {owner}",
        ]
    shown, seen = foreign.table(0, "Shown"), foreign.table(0, "countries")
    statements += [
        f"create view {shown} with (security_invoker = true) as select * from {foreign.table(0)}",
        f"alter view {shown} owner to {owner}",
        f"grant select on {shown} to {app}",
        f"create table {seen} (code text primary key)",
        f"alter table {seen} owner to {owner}",
        f"grant select on {seen} to {app}",
    ]
    foreign.execute(*statements)


@pytest.fixture(params=SITES, ids=lambda name: name)
def foreign(
    request: pytest.FixtureRequest, empty_database: Database, require_service: RequireService
) -> Iterator[Foreign]:
    """Return each site in turn, built as it should be."""
    server = empty_database.server
    require_service(server.superuser, "the server's administrator is no superuser")
    roles = {name: f"{name}_{token_hex(4)}" for name in ("owner", "app", "stranger")}
    with connected(server.admin_url) as cursor:
        for role in roles.values():
            cursor.execute(f"create role {role} login password 'secret'")
    try:
        foreign = Foreign(SITES[request.param], empty_database, roles)
        with closing(foreign):
            build(foreign)
            yield foreign
    finally:
        empty_database.drop()
        with connected(server.admin_url) as cursor:
            for role in roles.values():
                cursor.execute(f"drop role {role}")


LOOKERS = ("superuser", "owner", "app", "stranger")


def test_isolated_database_is_clean_for_whoever_looks(foreign: Foreign) -> None:
    """Superuser, owner, the application and a role with nothing but CONNECT find nothing."""
    for looker in LOOKERS:
        report = foreign.audit(looker)
        assert (report.findings, report.unseen, report.unlisted) == ((), (), ()), looker
        assert report.tables == 7 + (foreign.site.root is not None)
        assert foreign.told(looker) == []


FAULTS: dict[str, Callable[[Foreign], tuple[str, str]]] = {
    "row security is off": lambda site: (
        f"alter table {site.table(1)} disable row level security",
        "row_security_off",
    ),
    "row security is not forced on the parent": lambda site: (
        f"alter table {site.table(0, 'Parted of 2')} no force row level security",
        "row_security_off",
    ),
    "a partition is exposed": lambda site: (
        f"grant select on {site.table(0, 'part 1')} to {site.roles['app']}",
        "row_security_off",
    ),
    "the wall is gone": lambda site: (
        f'drop policy "the ""wall""" on {site.table(0, "select")}',
        "wall_missing",
    ),
    "the policy is gone": lambda site: (
        f"drop policy mine on {site.table(0, 'Parted of 2')}",
        "permissive_missing",
    ),
    "both let all rows through": lambda site: (
        f"alter policy mine on {site.table(1)} using (true); "
        f'alter policy "the ""wall""" on {site.table(1)} using (true)',
        "policy_expression",
    ),
    "true without a tenant": lambda site: (
        f'drop policy "the ""wall""" on {site.table(0)}; alter policy mine on {site.table(0)} '
        f"using ({site.site.rule} or {site.site.value} is null)",
        "policy_expression",
    ),
    "too much is granted": lambda site: (
        f"grant truncate on {site.table(1, 'select')} to {site.roles['app']}",
        "privilege_unguarded",
    ),
    "the view is a superuser's": lambda site: (
        f"alter view {site.table(0, 'Shown')} reset (security_invoker); "
        f"alter view {site.table(0, 'Shown')} owner to current_user",
        "view_without_security_invoker",
    ),
    "a key tells of others": lambda site: (
        f"alter table {site.table(1)} add unique (id)",
        "unique_without_tenant",
    ),
    "a tenant by default": lambda site: (
        f"alter role {site.roles['app']} set "
        + ".".join(quoted(part) for part in site.site.setting.split("."))
        + " = '7'",
        "setting_default",
    ),
    "the application is above row security": lambda site: (
        f"alter role {site.roles['app']} bypassrls",
        "runtime_role_privileged",
    ),
}


def test_each_fault_is_found_and_mended(foreign: Foreign) -> None:
    """Whatever things are called, the fault is found, and its statement mends it."""
    for name, fault in FAULTS.items():
        statement, check = fault(foreign)
        foreign.execute(statement)
        found = foreign.audit().findings
        assert check in {finding.check for finding in found}, name
        foreign.execute(
            *dict.fromkeys(finding.statement for finding in found if finding.statement is not None)
        )
        assert foreign.audit().findings == (), name


def test_owner_that_can_be_become_is_found(foreign: Foreign) -> None:
    """All that the owner has is within reach, in each schema, root and partitions included."""
    owner, app = foreign.roles["owner"], foreign.roles["app"]
    foreign.execute(f"grant {owner} to {app}")
    report = foreign.audit()
    [found] = [each for each in report.findings if each.check == "table_owner_reachable"]
    assert f" and {report.tables - 1} more tenant tables" in found.problem
    foreign.execute(found.statement or "")
    assert foreign.audit().findings == ()


def test_psql_and_python_find_the_same_for_whoever_looks(foreign: Foreign) -> None:
    """All columns of all findings, in the same order, hostile names included."""
    foreign.execute(*(fault(foreign)[0] for fault in FAULTS.values()))
    expected = foreign.audit("superuser").findings
    assert {fault(foreign)[1] for fault in FAULTS.values()} <= {each.check for each in expected}
    for looker in LOOKERS:
        found = foreign.audit(looker).findings
        assert found == expected
        assert foreign.told(looker) == [
            (
                each.check,
                str(each.severity),
                each.object_type,
                each.object,
                each.problem,
                each.remedy,
                each.statement,
            )
            for each in found
        ], looker

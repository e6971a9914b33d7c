"""Each reason why a database does not keep tenants apart, made real and found by the probe."""

import contextlib
from collections.abc import Iterator

import psycopg2
import pytest
from sqlalchemy.engine import URL
from tests.fixtures.logins import Logins, make_logins
from tests.fixtures.worlds import cursor_of

from tenantry import DEFAULT_CONFIG, Isolation, TenancyConfig
from tenantry.config import libpq_url
from tenantry.probe import probe
from tenantry.testing import Database

RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
OTHER = "organization_id = nullif(current_setting('app.another', true), '')::uuid"
OPEN = "its policies let other rows through"
DROP_WALL = "drop policy test_sets_tenant_wall on test_sets"

FAULTS = {
    "row security off": (
        ["alter table test_sets disable row level security"],
        "row security is not enabled",
    ),
    "not forced": (
        ["alter table test_sets no force row level security"],
        "row security is not forced",
    ),
    "second permissive policy without a wall": (
        [DROP_WALL, "create policy other on test_sets using (true)"],
        OPEN,
    ),
    "check (true) without a wall": (
        [DROP_WALL, "alter policy test_sets_tenant on test_sets with check (true)"],
        OPEN,
    ),
    "wall for one role": (
        [
            DROP_WALL,
            f"create policy test_sets_tenant_wall on test_sets as restrictive "
            f"for all to tenantry_app using ({RULE})",
            "create policy other on test_sets using (true)",
        ],
        OPEN,
    ),
    "wall for one command": (
        [
            DROP_WALL,
            f"create policy test_sets_tenant_wall on test_sets as restrictive "
            f"for select using ({RULE})",
            "create policy other on test_sets using (true)",
        ],
        OPEN,
    ),
    "wall with check (true)": (
        [
            "alter policy test_sets_tenant_wall on test_sets with check (true)",
            "alter policy test_sets_tenant on test_sets with check (true)",
        ],
        OPEN,
    ),
    "another setting in the policies": (
        [
            f"alter policy test_sets_tenant on test_sets using ({OTHER}) with check ({OTHER})",
            f"alter policy test_sets_tenant_wall on test_sets using ({OTHER}) with check ({OTHER})",
        ],
        OPEN,
    ),
    "true without a tenant": (
        [
            DROP_WALL,
            f"alter policy test_sets_tenant on test_sets using ({RULE} or "
            "current_setting('app.current_organization', true) is null)",
        ],
        OPEN,
    ),
    "truncate": (["grant truncate on test_sets to tenantry_app"], "the role may TRUNCATE it"),
    "owner is the application": (
        ["grant create on schema public to tenantry_app", "alter table test_sets owner to app"],
        "the role owns it",
    ),
    "owner is a role of the application's": (
        ["grant tenantry_owner to app"],
        "the role owns it, or is a member of its owner",
    ),
}


@pytest.fixture
def logins(fresh_database: Database) -> Iterator[Logins]:
    """Return what makes logins for this test's database, which are gone afterwards."""
    with make_logins(fresh_database) as logins:
        yield logins


def probed(url: URL, config: TenancyConfig = DEFAULT_CONFIG) -> Isolation:
    """Return what the probe says of a new connection."""
    with contextlib.closing(psycopg2.connect(libpq_url(url))) as connection:
        return probe(connection, config)


def change(database: Database, *statements: str) -> None:
    """Change the database as a superuser would."""
    with cursor_of(database.superuser_url) as cursor:
        for statement in statements:
            cursor.execute(statement)


def test_migrated_database_is_a_wall(fresh_database: Database) -> None:
    """After the migrations the application's login is kept inside one tenant everywhere."""
    found = probed(fresh_database.app_url)
    assert found.enforced
    assert found.reasons == ()
    assert len(found.tenant_tables) == found.reachable_tables
    assert (found.database, found.role) == (fresh_database.name, "tenantry_login")
    assert not found.pooled
    assert not found.citus
    assert not found.stored_default


@pytest.mark.parametrize(("statements", "reason"), FAULTS.values(), ids=FAULTS)
def test_fault_is_found(
    fresh_database: Database, logins: Logins, statements: list[str], reason: str
) -> None:
    """The fault in one table is named together with the table."""
    login = logins("tenantry_app")
    assert probed(login.url).enforced
    change(
        fresh_database,
        *(statement.replace(" app", f" {login.name}") for statement in statements),
    )
    found = probed(login.url)
    assert not found.enforced
    tables = {table.name: table.reasons for table in found.open_relations}
    assert reason in " ".join(tables["public.test_sets"])
    if not statements[0].startswith("grant tenantry_owner"):
        assert set(tables) == {"public.test_sets"}


@pytest.mark.parametrize(
    "statements",
    [
        [DROP_WALL],
        ["drop policy test_sets_tenant on test_sets"],
        ["create policy other on test_sets using (true)"],
        ["alter policy test_sets_tenant on test_sets using (true) with check (true)"],
    ],
    ids=["no wall", "no permissive policy", "one more policy", "permissive policy open"],
)
def test_one_policy_of_two_is_enough(fresh_database: Database, statements: list[str]) -> None:
    """As long as the wall or the rule alone stands, nothing is reported."""
    change(fresh_database, *statements)
    assert probed(fresh_database.app_url).enforced


@pytest.mark.parametrize(
    ("options", "reason"), [("bypassrls", "has BYPASSRLS"), ("superuser", "is superuser")]
)
def test_role_that_is_let_past_is_found(logins: Logins, options: str, reason: str) -> None:
    """A login that escapes row security, or can become a role that does, is named."""
    past = logins("tenantry_app", options=options)
    found = probed(past.url)
    assert not found.enforced
    assert found.role_reasons == (f"role {past.name} {reason}",)
    found = probed(logins("tenantry_app", past.name).url)
    assert not found.enforced
    assert found.role_reasons == (f"role {past.name} {reason}, and this login can become it",)


def test_role_that_reaches_the_servers_files_is_found(logins: Logins) -> None:
    """Whoever reads the server's files reads every tenant's rows."""
    found = probed(logins("tenantry_app", "pg_read_server_files").url)
    assert not found.enforced
    assert "reaches the server's own files" in " ".join(found.role_reasons)


def test_role_without_privileges_is_found(logins: Logins) -> None:
    """A login that reaches no tenant table is not mistaken for one that is kept apart."""
    found = probed(logins().url)
    assert found.reachable_tables == 0
    assert len(found.tenant_tables) > 0
    assert "holds no privilege on any tenant table" in " ".join(found.reasons)


def test_database_without_tables_is_no_wall(empty_database: Database) -> None:
    """Before the migrations nothing is enforced, and the reason says what to run."""
    found = probed(empty_database.app_url)
    assert found.tenant_tables == ()
    assert "alembic upgrade head" in " ".join(found.reasons)


def test_stored_default_is_told_and_harmless(fresh_database: Database, logins: Logins) -> None:
    """A tenant stored as a login's default is noticed; the wall itself still stands."""
    login = logins("tenantry_app")
    change(
        fresh_database,
        f"alter role {login.name} set app.current_organization = 'someone'",
    )
    found = probed(login.url)
    assert found.stored_default
    assert found.enforced


def test_undefined_settings_are_told_and_harmless(fresh_database: Database) -> None:
    """Where the settings were never defined the policies still hold."""
    change(fresh_database, f'alter database "{fresh_database.name}" reset all')
    found = probed(fresh_database.app_url)
    assert not found.settings_defined
    assert not found.stored_default
    assert found.enforced


def test_partition_without_a_wall_is_found(fresh_database: Database) -> None:
    """A partition that can be addressed itself needs its own wall."""
    change(
        fresh_database,
        "create table notes (organization_id uuid not null, body text) "
        "partition by hash (organization_id)",
        "create table notes_0 partition of notes for values with (modulus 1, remainder 0)",
        "alter table notes enable row level security",
        "alter table notes force row level security",
        f"create policy notes_tenant on notes using ({RULE})",
        "grant select on notes to tenantry_app",
    )
    assert probed(fresh_database.app_url).enforced
    change(fresh_database, "grant select on notes_0 to tenantry_app")
    assert [table.name for table in probed(fresh_database.app_url).open_relations] == [
        "public.notes_0"
    ]


def test_table_in_another_schema_is_found(fresh_database: Database) -> None:
    """Every schema is looked at, if the role may enter it; privileges on one column count."""
    change(
        fresh_database,
        'create schema "Other"',
        'create table "Other".notes (organization_id uuid not null, body text)',
        'grant select (body) on "Other".notes to tenantry_app',
    )
    assert probed(fresh_database.app_url).enforced
    change(fresh_database, 'grant usage on schema "Other" to tenantry_app')
    found = probed(fresh_database.app_url)
    assert [table.name for table in found.open_relations] == ['"Other".notes']
    assert found.reasons == (
        '"Other".notes: row security is not enabled, row security is not forced',
    )


def test_nothing_in_the_search_path_answers_for_the_catalog(fresh_database: Database) -> None:
    """Functions and tables that shadow the catalog's do not deceive the probe."""
    change(
        fresh_database,
        "create schema shadow",
        "create table shadow.pg_policy as select * from pg_catalog.pg_policy where false",
        "create table shadow.pg_roles as select * from pg_catalog.pg_roles where false",
        "create function shadow.row_security_active(oid) returns boolean "
        "language sql as 'select true'",
        "grant usage on schema shadow to tenantry_app",
        "grant select on all tables in schema shadow to tenantry_app",
        "alter table test_sets disable row level security",
    )
    url = fresh_database.app_url.update_query_dict(
        {"options": "-csearch_path=shadow,pg_catalog,public"}
    )
    assert [table.name for table in probed(url).open_relations] == ["public.test_sets"]


def test_probe_leaves_the_connection_as_it_was(fresh_database: Database) -> None:
    """Outside autocommit the probe opens no transaction and sets nothing."""
    with contextlib.closing(psycopg2.connect(libpq_url(fresh_database.app_url))) as connection:
        before = probe(connection, DEFAULT_CONFIG)
        assert not connection.autocommit
        status = connection.info.transaction_status
        assert status == psycopg2.extensions.TRANSACTION_STATUS_IDLE
        assert probe(connection, DEFAULT_CONFIG) == before


@pytest.mark.parametrize(
    "statement",
    [
        "create function public.authenticate_token(text) returns int language sql as 'select 1'",
        "alter function public.authenticate_token(bytea) volatile",
        "create schema other; create function other.authenticate_token() returns int stable "
        "language sql as 'select 1'; alter function other.authenticate_token() owner to {login}",
        "create function public.authenticate_token(a internal) returns internal stable "
        "language internal as 'int8inc'",
    ],
    ids=["another may change things", "it may", "another is the role's own", "another is C"],
)
def test_function_is_steady_only_if_each_of_its_name_promises_it(
    fresh_database: Database, statement: str
) -> None:
    """A name is trusted where no function that is called so may leave anything in a session."""
    assert "authenticate_token" in probed(fresh_database.app_url).steady_functions
    with cursor_of(fresh_database.superuser_url) as cursor:
        cursor.execute(statement.format(login=fresh_database.app_url.username))
    assert "authenticate_token" not in probed(fresh_database.app_url).steady_functions


def test_functions_of_the_server_and_of_extensions_promise_nothing(
    fresh_database: Database,
) -> None:
    """Some of them execute the text that they are given, which promises nothing."""
    with cursor_of(fresh_database.superuser_url) as cursor:
        cursor.execute("create extension tablefunc")
    assert not {"crosstab", "table_to_xml", "abs"} & probed(fresh_database.app_url).steady_functions


def test_other_names_are_other_tables(fresh_database: Database) -> None:
    """With another configuration the probe looks for that one's column and root table."""
    found = probed(
        fresh_database.app_url,
        TenancyConfig(tenant_column="customer_id", root_table="customers"),
    )
    assert found.tenant_tables == ()
    other = TenancyConfig(organization_setting="app.another")
    assert not probed(fresh_database.app_url, other).enforced

import csv
import io
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import make_dsn
from sqlalchemy.engine import URL

from tenantry.embedded.binaries import find_binaries
from tenantry.testing import Server

SCRIPTS = Path(__file__).parents[2] / "sql"
RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
ROOT_RULE = RULE.replace("organization_id =", "id =")

# Roles belong to the whole server, so the ones that faults are made with carry the run's own mark.
MARK = uuid4().hex[:8]
APP, LOGIN, OWNER = f"app_{MARK}", f"login_{MARK}", f"owner_{MARK}"
READER, STRANGER = f"reader_{MARK}", f"stranger_{MARK}"


def wall(table: str, rule: str = RULE, using: str | None = None) -> str:
    return f"""
        alter table {table} enable row level security;
        alter table {table} force row level security;
        create policy tenant on {table} using ({rule}) with check ({rule});
        create policy wall on {table} as restrictive using ({using or rule}) with check ({rule});
        grant select, insert, update, delete on {table} to {APP};
        alter table {table} owner to {OWNER};
    """


SCHEMA = f"""
    create table organizations (id uuid primary key);
    create table test_sets (organization_id uuid not null, id uuid not null);
    create table api_tokens (organization_id uuid not null, token_hash bytea);
    create table events (organization_id uuid not null) partition by hash (organization_id);
    create table events_0 partition of events for values with (modulus 1, remainder 0);
    create schema "Other ""Schema";
    create table "Other ""Schema"."select" (organization_id uuid not null);
    create view safe with (security_invoker = on) as select id from test_sets;
    grant select on safe to {APP};
    create materialized view totals as select count(*) from test_sets;
    create function authenticate_token(bytea) returns uuid language sql security definer
      set search_path = pg_catalog, public, pg_temp
      return (select organization_id from api_tokens where token_hash = $1);
    {wall("organizations", ROOT_RULE)}
    {wall("test_sets")}
    {wall("api_tokens", using=f"({RULE}) or current_user = '{READER}'::name")}
    create policy reader on api_tokens for select to {READER} using (true);
    grant select on api_tokens to {READER};
    alter function authenticate_token(bytea) owner to {READER};
    {wall("events")}
    alter table events_0 owner to {OWNER};
    {wall('"Other ""Schema"."select"')}
"""


@dataclass(frozen=True)
class Fault:
    name: str
    make: str
    mend: str
    subject: str
    reason: str


def policy_fault(name: str, policy: str, reason: str) -> Fault:
    return Fault(
        name,
        f"drop policy wall on test_sets; create policy wall on test_sets {policy}",
        "drop policy wall on test_sets; create policy wall on test_sets as restrictive "
        f"using ({RULE}) with check ({RULE})",
        "test_sets",
        reason,
    )


FAULTS = [
    Fault(
        "row_security_off",
        "alter table test_sets disable row level security",
        "alter table test_sets enable row level security",
        "test_sets",
        "row security is off",
    ),
    Fault(
        "not_forced",
        "alter table test_sets no force row level security",
        "alter table test_sets force row level security",
        "test_sets",
        "row security is not forced",
    ),
    Fault(
        "root_table_open",
        "alter table organizations disable row level security",
        "alter table organizations enable row level security",
        "organizations",
        "row security is off",
    ),
    Fault(
        "hostile_name",
        'alter table "Other ""Schema"."select" disable row level security',
        'alter table "Other ""Schema"."select" enable row level security',
        "select",
        "row security is off",
    ),
    Fault(
        "new_table",
        f"create table copied (like test_sets including all); grant select on copied to {APP}",
        "drop table copied",
        "copied",
        "no restrictive policy (wall)",
    ),
    Fault(
        "wall_missing",
        "drop policy wall on test_sets",
        f"create policy wall on test_sets as restrictive using ({RULE}) with check ({RULE})",
        "test_sets",
        "no restrictive policy (wall)",
    ),
    Fault(
        "permissive_without_wall",
        "drop policy wall on test_sets; create policy shared on test_sets for select using (true)",
        "drop policy shared on test_sets; "
        f"create policy wall on test_sets as restrictive using ({RULE}) with check ({RULE})",
        "test_sets",
        "policy shared: is for select alone and using is true, all rows",
    ),
    policy_fault(
        "wall_scoped",
        f"as restrictive to {APP} using ({RULE}) with check ({RULE})",
        f"wall wall: is scoped to {APP}",
    ),
    policy_fault(
        "wall_for_select", f"as restrictive for select using ({RULE})", "is for select alone"
    ),
    policy_fault("check_true", f"as restrictive using ({RULE}) with check (true)", "check is true"),
    policy_fault("using_true", "as restrictive using (true)", "using is true, all rows"),
    policy_fault(
        "shared_rows", f"as restrictive using ({RULE} or organization_id is null)", "using is"
    ),
    policy_fault(
        "open_without_context",
        "as restrictive using (organization_id = coalesce(nullif(current_setting("
        "'app.current_organization', true), '')::uuid, organization_id))",
        "which can be true without a tenant",
    ),
    policy_fault(
        "empty_setting_raises",
        "as restrictive using "
        "(organization_id = current_setting('app.current_organization', true)::uuid)",
        "using is (organization_id = (current_setting(",
    ),
    policy_fault(
        "wrong_setting",
        f"as restrictive using ({RULE.replace('app.current_organization', 'app.tenant')})",
        "'app.tenant'",
    ),
    policy_fault(
        "wrong_column",
        f"as restrictive using ({ROOT_RULE})",
        "using is (id = ",
    ),
    policy_fault(
        "exception_elsewhere",
        f"as restrictive using (({RULE}) or current_user = '{READER}'::name) with check ({RULE})",
        "using is ((organization_id",
    ),
    Fault(
        "planted_function",
        "create schema planted; create function planted.current_setting(text, boolean) "
        "returns text stable return 'x'; drop policy wall on test_sets; "
        "set search_path = planted, pg_catalog, public; "
        f"create policy wall on test_sets as restrictive using ({RULE})",
        "drop policy wall on test_sets; drop schema planted cascade; "
        f"create policy wall on test_sets as restrictive using ({RULE})",
        "test_sets",
        "planted.current_setting",
    ),
    *(
        Fault(
            f"grant_{privilege}",
            f"grant {privilege} on test_sets to {grantee}",
            f"revoke {privilege} on test_sets from {grantee}",
            "test_sets",
            f"{named} has {privilege.upper()}",
        )
        for privilege, grantee, named in (
            ("truncate", APP, APP),
            ("trigger", "public", APP),
            ("references", LOGIN, LOGIN),
        )
    ),
    Fault(
        "app_owns",
        f"alter table test_sets owner to {APP}",
        f"alter table test_sets owner to {OWNER}; "
        f"grant select, insert, update, delete on test_sets to {APP}",
        "test_sets",
        f"{APP} owns it",
    ),
    Fault(
        "login_is_member_of_owner",
        f"grant {STRANGER} to {LOGIN}; grant {OWNER} to {STRANGER}",
        f"revoke {STRANGER} from {LOGIN}; revoke {OWNER} from {STRANGER}",
        "test_sets",
        f"{LOGIN} can become its owner {OWNER}",
    ),
    Fault(
        "app_bypasses",
        f"alter role {APP} bypassrls",
        f"alter role {APP} nobypassrls",
        "test_sets",
        f"{APP} BYPASSRLS",
    ),
    Fault(
        "login_is_superuser",
        f"alter role {LOGIN} superuser",
        f"alter role {LOGIN} nosuperuser",
        LOGIN,
        "superuser: row security never applies",
    ),
    Fault(
        "login_reaches_bypassrls",
        f"alter role {STRANGER} bypassrls; grant {STRANGER} to {LOGIN}",
        f"revoke {STRANGER} from {LOGIN}; alter role {STRANGER} nobypassrls",
        LOGIN,
        f"can become {STRANGER}, which has BYPASSRLS",
    ),
    Fault(
        "login_reads_server_files",
        f"grant pg_read_server_files to {LOGIN}",
        f"revoke pg_read_server_files from {LOGIN}",
        LOGIN,
        "is a member of pg_read_server_files",
    ),
    Fault(
        "login_reaches_reader",
        f"grant {READER} to {LOGIN}",
        f"revoke {READER} from {LOGIN}",
        "api_tokens",
        f"{LOGIN} can become {READER}",
    ),
    Fault(
        "reader_may_update",
        f"grant update on api_tokens to {READER}",
        f"revoke update on api_tokens from {READER}",
        "api_tokens",
        f"{READER} may do more than SELECT",
    ),
    Fault(
        "reader_reads_elsewhere",
        f"grant select on test_sets to {READER}",
        f"revoke select on test_sets from {READER}",
        "api_tokens",
        f"{READER} may also use test_sets",
    ),
    Fault(
        "reader_function_unpinned",
        "alter function authenticate_token(bytea) reset search_path",
        "alter function authenticate_token(bytea) set search_path = pg_catalog, public, pg_temp",
        "api_tokens",
        "no pinned search_path",
    ),
    Fault(
        "exception_with_open_check",
        "alter policy wall on api_tokens with check (true)",
        f"alter policy wall on api_tokens with check ({RULE})",
        "api_tokens",
        "with check is true",
    ),
    Fault(
        "view_of_the_owner",
        f"create view names as select id from test_sets; grant select on names to {APP}",
        "drop view names",
        "names",
        "a view without security_invoker",
    ),
    Fault(
        "materialized_view_granted",
        f"grant select on totals to {APP}",
        f"revoke select on totals from {APP}",
        "totals",
        "a materialized view has no row security",
    ),
    Fault(
        "foreign_table_granted",
        "create foreign data wrapper w; create server s foreign data wrapper w; "
        "create foreign table far (organization_id uuid) server s; "
        f"grant select on far to {APP}",
        "drop foreign data wrapper w cascade",
        "far",
        "a foreign table has no row security",
    ),
    Fault(
        "partition_granted",
        f"grant select on events_0 to {APP}",
        f"revoke select on events_0 from {APP}",
        "events_0",
        "row security is off",
    ),
    Fault(
        "default_for_the_database",
        "do $$ begin execute format('alter database %I set app.current_organization = %L', "
        "current_database(), 'somebody'); end $$",
        "do $$ begin execute format('alter database %I reset app.current_organization', "
        "current_database()); end $$",
        "app.current_organization",
        "the default for this database is 'somebody'",
    ),
    Fault(
        "default_for_the_login",
        f"alter role {LOGIN} set app.\"current_user\" = 'somebody'",
        f'alter role {LOGIN} reset app."current_user"',
        "app.current_user",
        f"the default for role {LOGIN} is 'somebody'",
    ),
    Fault(
        "login_may_store_a_default",
        f"grant set on parameter app.current_organization to {LOGIN}",
        f"revoke set on parameter app.current_organization from {LOGIN}",
        "app.current_organization",
        f"{LOGIN} has SET on the parameter",
    ),
]


@dataclass(frozen=True)
class Outcome:
    status: int
    output: str
    errors: str

    def verdict_of(self, subject: str) -> str:
        for row in csv.reader(io.StringIO(self.output)):
            if len(row) > 1 and subject in row[:2]:
                return row[-1]
        raise AssertionError(f"{subject} is not in the report:\n{self.output}\n{self.errors}")


@dataclass(frozen=True)
class Database:
    url: URL
    options: str = ""

    @property
    def dsn(self) -> str:
        return make_dsn(
            host=self.url.host,
            port=self.url.port,
            user=self.url.username,
            password=self.url.password,
            dbname=self.url.database,
            options=self.options,
        )

    def execute(
        self, statements: str | sql.Composable, role: str | None = None
    ) -> list[tuple[object, ...]]:
        with closing(psycopg2.connect(self.dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                if role is not None:
                    cursor.execute(
                        sql.SQL("set session authorization {}").format(sql.Identifier(role))
                    )
                cursor.execute(statements)
                return cursor.fetchall() if cursor.description else []

    def psql(
        self, script: str, variables: Mapping[str, str], *, stop: bool = True, style: str = "--csv"
    ) -> Outcome:
        settings = {"ON_ERROR_STOP": "1"} if stop else {}
        done = subprocess.run(
            [
                find_binaries().psql,
                "--no-psqlrc",
                "--quiet",
                style,
                f"--file={SCRIPTS / script}",
                f"--dbname={self.dsn}",
                *(f"--set={name}={value}" for name, value in (settings | dict(variables)).items()),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def audit(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        stop: bool = True,
        style: str = "--csv",
    ) -> Outcome:
        names = {"app_role": APP, "authenticator_role": READER} | dict(variables or {})
        return self.psql("audit.sql", names, stop=stop, style=style)


MakeDatabase = Callable[..., Database]


@pytest.fixture(scope="module")
def superuser(tenantry_server: Server, require_service: Callable[[object, str], None]) -> URL:
    require_service(tenantry_server.superuser, "the server's administrator is no superuser")
    return tenantry_server.admin_url


@pytest.fixture(scope="module")
def make_database(superuser: URL) -> Iterator[MakeDatabase]:
    made: list[str] = []
    server = Database(superuser)

    def make(name: str | None = None, template: str = "template0") -> Database:
        name = name or f"scripts_{uuid4().hex}"
        server.execute(
            sql.SQL("create database {} template {}").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
        made.append(name)
        return Database(superuser.set(database=name))

    yield make
    for name in made:
        server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
    server.execute(
        f"""
        do $$
        declare
          role text;
        begin
          for role in select rolname from pg_catalog.pg_roles where rolname like '%{MARK}%' loop
            execute format('drop owned by %I', role);
          end loop;
          for role in select rolname from pg_catalog.pg_roles where rolname like '%{MARK}%' loop
            execute format('drop role %I', role);
          end loop;
        end
        $$
        """
    )


@pytest.fixture(scope="module")
def template(superuser: URL, make_database: MakeDatabase) -> str:
    server = Database(superuser)
    for role in (APP, LOGIN, OWNER, READER, STRANGER):
        server.execute(f"create role {role}")
    server.execute(f"alter role {LOGIN} login; grant {APP} to {LOGIN}")
    database = make_database()
    database.execute(SCHEMA)
    return str(database.url.database)


@pytest.fixture
def database(make_database: MakeDatabase, template: str) -> Database:
    return make_database(template=template)


def test_an_isolated_database_passes(database: Database) -> None:
    outcome = database.audit()
    assert outcome.status == 0, outcome
    assert outcome.errors == ""
    assert "\nISOLATED: 8 tables and views, no fault found\n" in outcome.output
    for table in ("organizations", "test_sets", "events", "select", "safe"):
        assert outcome.verdict_of(table) == "isolated"


def test_what_is_out_of_the_ordinary_is_said_of_an_isolated_table(database: Database) -> None:
    database.execute("create policy second on test_sets for select using (true)")
    outcome = database.audit()
    assert outcome.status == 0, outcome
    assert "the wall contains it" in outcome.verdict_of("test_sets")
    assert "allow-listed exception" in outcome.verdict_of("api_tokens")
    assert "a partition without grants" in outcome.verdict_of("events_0")
    assert "not granted to the application" in outcome.verdict_of("totals")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_audit_finds_the_fault_and_passes_when_it_is_mended(
    database: Database, fault: Fault
) -> None:
    try:
        database.execute(fault.make)
        found = database.audit()
        told = database.audit(stop=False)
    finally:
        database.execute(fault.mend)
    assert found.status == 3, found
    verdict = found.verdict_of(fault.subject)
    assert "NOT " in verdict or verdict.startswith("FAULT")
    assert fault.reason in verdict
    assert "NOT ISOLATED" in found.errors
    assert fault.subject in found.errors
    assert (told.status, told.output) == (0, found.output)
    mended = database.audit()
    assert mended.status == 0, mended


@pytest.mark.parametrize(
    "policy",
    [
        f"using ({RULE})",
        f"using ({RULE.replace('= ', '= (select ', 1)})) with check ({RULE})",
    ],
    ids=["check_left_out", "sub_select"],
)
def test_equivalent_walls_pass(database: Database, policy: str) -> None:
    database.execute(
        f"drop policy wall on test_sets; create policy wall on test_sets as restrictive {policy}"
    )
    outcome = database.audit()
    assert outcome.status == 0, outcome


def test_a_connection_that_begins_with_a_tenant_is_a_fault(database: Database) -> None:
    """A value from the connection's options stands where a stored default would."""
    limited = Database(database.url, "-c app.current_organization=somebody")
    outcome = limited.audit()
    assert outcome.status == 3
    assert "this session begins with 'somebody'" in outcome.verdict_of("app.current_organization")


def test_the_application_and_a_stranger_can_run_the_audit(database: Database) -> None:
    """Every role sees the same report, and the catalogs are all it needs."""
    expected = database.audit().output
    for role in (LOGIN, STRANGER):
        limited = Database(database.url, f"-c role={role}")
        outcome = limited.audit()
        assert (outcome.status, outcome.output) == (0, expected), outcome


def test_audit_leaves_nothing_behind(database: Database) -> None:
    """It runs where nothing may be written, and quoting options of the session do not matter."""
    options = "-c default_transaction_read_only=on -c quote_all_identifiers=on"
    limited = Database(database.url, options)
    assert limited.audit().status == 0


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"tenant_column": "tenant_id"}, "no table has the column tenant_id: run the migrations"),
        ({"app_role": "nobody at all"}, "there is no role nobody at all"),
        ({"root_table": "customers"}, "there is no table customers"),
        ({"schemas": "public,absent"}, "there is no schema absent"),
        ({"id_type": "nonsense"}, "nonsense is not a type"),
    ],
)
def test_an_audit_that_cannot_see_does_not_pass(
    database: Database, variables: dict[str, str], said: str
) -> None:
    outcome = database.audit(variables)
    assert outcome.status == 3
    assert said in outcome.errors


def test_an_empty_database_does_not_pass(make_database: MakeDatabase, template: str) -> None:
    outcome = make_database().audit()
    assert outcome.status == 3
    assert "no table has the column organization_id" in outcome.errors


@pytest.mark.parametrize("id_type", ["bigint", "integer", "text", "uuid"])
def test_another_projects_names_are_audited(
    make_database: MakeDatabase, template: str, id_type: str
) -> None:
    """Column, id type, setting and schemas are the project's own."""
    database = make_database()
    rule = f"\"Tenant's Id\" = nullif(current_setting('my.tenant', true), '')::{id_type}"
    database.execute("create schema one; create schema two; create schema three")
    for table in ("one.a", 'two."A b"', "three.a"):
        database.execute(f'create table {table} ("Tenant\'s Id" {id_type})')
    for table in ("one.a", 'two."A b"'):
        database.execute(wall(table, rule))
    names = {
        "tenant_column": "Tenant's Id",
        "id_type": id_type,
        "organization_setting": "my.tenant",
        "user_setting": "my.user",
    }
    some = database.audit(names | {"schemas": "one, two"})
    assert some.status == 0, some
    assert "ISOLATED: 2 tables" in some.output
    every = database.audit(names)
    assert every.status == 3
    assert "1 of 3 tables and views" in every.errors


def test_the_report_is_a_table_for_a_person(database: Database) -> None:
    outcome = database.audit(style="--pset=border=1")
    assert "| on, forced        | tenant (permissive, all, to PUBLIC)" in outcome.output
    assert outcome.output.endswith("\nISOLATED: 8 tables and views, no fault found\n")


def test_a_server_that_is_too_old_is_refused(database: Database, tmp_path: Path) -> None:
    """Shown by raising the bound, since no such server is at hand."""
    script = tmp_path / "audit.sql"
    text = (SCRIPTS / "audit.sql").read_text()
    assert "150000" in text
    script.write_text(text.replace("150000", "990000"))
    for stop, status in ((True, 3), (False, 0)):
        outcome = database.psql(str(script), {}, stop=stop)
        assert outcome.status == status
        assert (
            outcome.output == "PostgreSQL 15 or newer is needed, this server is older: nothing "
            "was looked at.\n"
        )
        assert outcome.errors.count("ERROR") == 1


HOSTILE = {
    "app_login": f'lo\'gin "app" {MARK}',
    "migrator_login": f"Migrator; drop {MARK}",
    "maintenance_login": f"maintainer%I {MARK}",
    "owner_role": f"Owner's {MARK}",
    "app_role": f"select {MARK}",
    "authenticator_role": f'"reader" {MARK}',
    "maintenance_role": f"maintenance\\{MARK}",
    "broker_role": f"bro'ker {MARK}",
    "broker_schema": 'bro"ker',
    "schema": "Sche\"ma 's",
    "tenant_column": "Tenant's Id",
    "root_table": 'Root "Table"',
}
PLAIN = {
    name: f"{name}_{MARK}"
    for name in (
        "app_login",
        "migrator_login",
        "maintenance_login",
        "owner_role",
        "app_role",
        "authenticator_role",
        "maintenance_role",
        "broker_role",
    )
}

# What roles.sql writes to, with names for oids.
CATALOG = f"""
    select 'role', to_jsonb(r) - 'oid' from pg_catalog.pg_roles as r where rolname like '%{MARK}%'
    union all
    select 'member', to_jsonb(m) - 'oid' from pg_catalog.pg_auth_members as m
    union all
    select 'database', jsonb_build_array(d.datacl, pg_get_userbyid(d.datdba))
    from pg_catalog.pg_database as d where datname = current_database()
    union all
    select 'setting', to_jsonb(s) from pg_catalog.pg_db_role_setting as s
    union all
    select 'parameter', to_jsonb(p) - 'oid' from pg_catalog.pg_parameter_acl as p
    union all
    select 'schema', to_jsonb(n) from pg_catalog.pg_namespace as n
    where nspname !~ '^pg_(toast_)?temp'
    union all
    select 'relation', jsonb_build_array(c.oid::regclass, c.relacl, pg_get_userbyid(c.relowner))
    from pg_catalog.pg_class as c where c.relnamespace::regnamespace::text !~ '^pg_'
    union all
    select 'function', jsonb_build_array(p.oid::regprocedure, p.proacl, pg_get_userbyid(p.proowner))
    from pg_catalog.pg_proc as p where p.pronamespace::regnamespace::text !~ '^pg_(toast_)?temp'
    union all
    select 'default', to_jsonb(a) - 'oid' from pg_catalog.pg_default_acl as a
    order by 1, 2
"""


@pytest.mark.parametrize("names", [PLAIN, HOSTILE], ids=["plain", "hostile"])
def test_a_second_run_of_roles_changes_nothing(
    make_database: MakeDatabase, names: dict[str, str]
) -> None:
    suffix = uuid4().hex
    database = make_database(f"Da'ta \"base; {suffix}" if names is HOSTILE else None)
    first = database.psql("roles.sql", names)
    assert first.status == 0, first
    assert first.errors == ""
    assert "\\password " in first.output
    catalog = database.execute(CATALOG)
    second = database.psql("roles.sql", names)
    assert second.status == 0, second
    assert database.execute(CATALOG) == catalog


@pytest.mark.parametrize("names", [PLAIN, HOSTILE], ids=["plain", "hostile"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_migrator_without_superuser_builds_what_the_audit_passes(
    make_database: MakeDatabase, names: dict[str, str], when: str
) -> None:
    """After roles.sql the migrator does all that migrations do; tables it finds it takes over."""
    name = f"Ze'bra \"{uuid4().hex}" if names is HOSTILE else None
    database = make_database(name)
    schema = names.get("schema", "public")
    column = names.get("tenant_column", "organization_id")
    root = names.get("root_table", "organizations")
    rule = "nullif(current_setting('app.current_organization', true), '')::uuid"
    q = {key: '"' + value.replace('"', '""') + '"' for key, value in names.items()}
    s = '"' + schema.replace('"', '""') + '"'
    c = '"' + column.replace('"', '""') + '"'
    r = '"' + root.replace('"', '""') + '"'
    tables = f"""
        create table {s}.{r} (id uuid primary key);
        create table {s}.test_sets ({c} uuid not null, id uuid);
        create table {s}.api_tokens ({c} uuid not null, token_hash bytea);
        create function {s}.authenticate_token(bytea) returns uuid language sql security definer
          set search_path = pg_catalog, pg_temp return null::uuid;
    """
    reader = names["authenticator_role"].replace("'", "''")
    policies = "".join(
        f"""
        alter table {s}.{table} enable row level security;
        alter table {s}.{table} force row level security;
        create policy tenant on {s}.{table} using ({key} = {rule});
        create policy wall on {s}.{table} as restrictive
          using (({key} = {rule}){exempt}) with check ({key} = {rule});
        """
        for table, key, exempt in (
            (r, "id", ""),
            ("test_sets", c, ""),
            ("api_tokens", c, f" or current_user = '{reader}'::name"),
        )
    )
    policies += f"""
        create policy reader on {s}.api_tokens for select to {q["authenticator_role"]} using (true);
    """
    if when == "after":
        if schema != "public":
            database.execute(f"create schema {s}")
        database.execute(tables)
    assert database.psql("roles.sql", names).status == 0
    migrator = names["migrator_login"]
    if when == "before":
        database.execute(
            f"""
            set role {q["owner_role"]}; {tables}
            grant select, insert, update, delete
              on {s}.{r}, {s}.test_sets, {s}.api_tokens
              to {q["app_role"]}, {q["maintenance_role"]};
            grant select on {s}.api_tokens to {q["authenticator_role"]};
            grant create on schema {s} to {q["authenticator_role"]};
            alter function {s}.authenticate_token(bytea) owner to {q["authenticator_role"]};
            revoke create on schema {s} from {q["authenticator_role"]};
            """,
            role=migrator,
        )
    database.execute(f"set role {q['owner_role']}; {policies}", role=migrator)
    database.execute(
        """
        do $$ begin
          execute format('alter database %I set app.current_organization = %L',
                         current_database(), '');
          execute format('alter database %I set app."current_user" = %L', current_database(), '');
        end $$
        """,
        role=migrator,
    )
    known = {key: names[key] for key in ("app_role", "authenticator_role")} | {
        "tenant_column": column,
        "root_table": root,
    }
    outcome = database.psql("audit.sql", known)
    assert outcome.status == 0, outcome
    assert "allow-listed exception" in outcome.verdict_of("api_tokens")
    assert (
        database.execute(
            sql.SQL("set role {}; table {}.test_sets").format(
                sql.Identifier(names["app_role"]), sql.Identifier(schema)
            ),
            role=names["app_login"],
        )
        == []
    )


def test_roles_closes_what_the_application_must_not_have(make_database: MakeDatabase) -> None:
    database = make_database()
    assert database.psql("roles.sql", PLAIN).status == 0
    login = PLAIN["app_login"]
    for statement in (
        "create temporary table t ()",
        "create table public.t ()",
        "select pg_catalog.pg_terminate_backend(0)",
        "select * from pg_catalog.pg_stat_activity",
        "select pg_catalog.lo_create(0)",
        f"set role {PLAIN['maintenance_role']}",
        f"set role {PLAIN['owner_role']}",
        f"alter role {login} set app.current_organization = 'x'",
    ):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege):
            database.execute(statement, role=login)
    assert database.execute(
        "select current_setting('app.current_organization'), current_setting('app.current_user')",
        role=login,
    ) == [("", "")]


def test_roles_takes_passwords_from_the_environment(
    make_database: MakeDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password is stored as a SCRAM verifier, and a login that has one is not asked about."""
    database = make_database()
    password = 'it\'s "a" %I \\ secret'
    monkeypatch.setenv("TENANTRY_APP_PASSWORD", password)
    outcome = database.psql("roles.sql", PLAIN)
    assert outcome.status == 0, outcome
    assert password not in outcome.output
    assert f"\\password {PLAIN['app_login']}" not in outcome.output
    url = database.url.set(username=PLAIN["app_login"], password=password)
    assert Database(url).execute("select session_user") == [(PLAIN["app_login"],)]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ({"app_role": PLAIN["owner_role"]}, "eight different names"),
        ({"app_login": f"super_{MARK}"}, "is a superuser"),
        ({"app_login": f"bypass_{MARK}"}, "has BYPASSRLS or REPLICATION"),
    ],
)
def test_roles_refuses_and_changes_nothing(
    make_database: MakeDatabase, names: dict[str, str], said: str
) -> None:
    database = make_database()
    database.execute(
        f"""
        drop role if exists super_{MARK}, bypass_{MARK};
        create role super_{MARK} superuser;
        create role bypass_{MARK} bypassrls
        """
    )
    before = database.execute(CATALOG)
    outcome = database.psql("roles.sql", PLAIN | names, stop=False)
    assert outcome.status == 3
    assert said in outcome.errors
    assert database.execute(CATALOG) == before


def test_roles_needs_a_superuser(database: Database) -> None:
    limited = Database(database.url, f"-c role={STRANGER}")
    outcome = limited.psql("roles.sql", PLAIN)
    assert outcome.status == 3
    assert "a DBA has to run roles.sql" in outcome.errors

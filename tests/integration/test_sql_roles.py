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
# Roles belong to the whole server, so those of a run carry its own mark.
MARK = uuid4().hex[:8]


@dataclass(frozen=True)
class Outcome:
    status: int
    output: str
    errors: str


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

    def psql(self, script: str, variables: Mapping[str, str], *, stop: bool = True) -> Outcome:
        settings = {"ON_ERROR_STOP": "1"} if stop else {}
        done = subprocess.run(
            [
                find_binaries().psql,
                "--no-psqlrc",
                "--quiet",
                f"--file={SCRIPTS / script}",
                f"--dbname={self.dsn}",
                *(f"--set={name}={value}" for name, value in (settings | dict(variables)).items()),
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)


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
    """A second run leaves every catalog it writes to as it was."""
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
          set search_path = pg_catalog, pg_temp
          return (select t.{c} from {s}.api_tokens as t where t.token_hash = $1);
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
          -- What roles.sql leaves to its reader.
          execute format('revoke connect on database %I from public', current_database());
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
    *found, verdict = outcome.output.splitlines()
    assert verdict.startswith("ISOLATED: ")
    # What a look-up of one's own returns is for a person to read, where everybody may call it.
    lent = ["check_id    definer_function_lends"] if when == "after" else []
    assert [line for line in found if line.startswith("check_id")] == lent
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
    """PUBLIC and the login lose what goes round row security."""
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


def test_roles_needs_a_superuser(make_database: MakeDatabase) -> None:
    """Whoever is none is told so, before anything is done."""
    database = make_database()
    database.execute(f"create role stranger_{MARK}")
    limited = Database(database.url, f"-c role=stranger_{MARK}")
    outcome = limited.psql("roles.sql", PLAIN)
    assert outcome.status == 3
    assert "a DBA has to run roles.sql" in outcome.errors

"""What lets an application's role round row security is found; what does not raises no alarm."""

import contextlib
from collections.abc import Iterator

import psycopg2
import pytest
from sqlalchemy.engine import URL
from tests.fixtures.logins import Account, Logins, make_logins
from tests.fixtures.worlds import A, B, add_tenant, cursor_of

from tenantry import (
    DEFAULT_CONFIG,
    Isolation,
)
from tenantry.config import libpq_url
from tenantry.probe import probe
from tenantry.testing import Database

RULE = "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"

READ = "select name from test_sets"


@pytest.fixture
def attacked(fresh_database: Database) -> Database:
    """Return a migrated database with rows of A and B."""
    for letter in "ab":
        add_tenant(fresh_database, letter)
    return fresh_database


@pytest.fixture
def logins(attacked: Database) -> Iterator[Logins]:
    """Return what makes logins for this test's database."""
    with make_logins(attacked) as logins:
        yield logins


@pytest.fixture
def login(logins: Logins) -> Account:
    """Return a login of the test's own, a member of the application's role."""
    return logins("tenantry_app")


def probed(url: URL, *before: str, options: str = "") -> Isolation:
    """Return what the probe says of a new connection, after these statements."""
    with contextlib.closing(psycopg2.connect(libpq_url(url), options=options)) as connection:
        with connection.cursor() as cursor:
            for statement in before:
                cursor.execute(statement)
        connection.commit()
        return probe(connection, DEFAULT_CONFIG)


def change(target: Database, *statements: str) -> None:
    """Change the database as a superuser would."""
    with cursor_of(target.superuser_url) as cursor:
        for statement in statements:
            cursor.execute(statement)


def found_in(found: Isolation) -> list[str]:
    """Return the names of what is not walled off."""
    return [relation.name for relation in found.open_relations]


def read_as_a(login: Account, *statements: str) -> str:
    """Run these for A as the login, and return all rows of the last."""
    with cursor_of(login.url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [str(A)])
        for statement in statements:
            cursor.execute(statement)
        return str(cursor.fetchall())


def reasons_of(found: Isolation) -> str:
    """Return all that was found, as one text."""
    return "; ".join(found.reasons)


# Views, materialized views, functions

SHOWING: dict[str, tuple[str, str]] = {
    "view": ("create view shown as select * from test_sets", "public.shown"),
    "view of a view": (
        "create view shown as select * from test_sets;"
        "create view shown_again with (security_invoker) as select * from shown",
        "public.shown",
    ),
    "view that says it is no invoker": (
        "create view shown with (security_invoker = false) as select * from test_sets",
        "public.shown",
    ),
    "materialized view": (
        "create materialized view shown as select * from test_sets",
        "public.shown",
    ),
    "function": (
        "create function shown() returns setof test_sets language sql security definer"
        " set search_path = public as 'select * from test_sets'",
        "public.shown()",
    ),
}


@pytest.mark.parametrize(("statement", "name"), SHOWING.values(), ids=SHOWING)
def test_relation_with_anothers_rights_is_found(
    attacked: Database, login: Account, statement: str, name: str
) -> None:
    """What a superuser made, and the role may use, shows rows of all tenants, and is named."""
    change(attacked, statement)
    assert probed(login.url).enforced or name.endswith("()")
    change(attacked, "grant select on all tables in schema public to tenantry_app")
    assert found_in(probed(login.url)) == [name]
    call = name.removeprefix("public.")
    assert "'b1'" in read_as_a(login, f"select name from {call}")


HARMLESS: dict[str, str] = {
    "view of the invoker": (
        "create view shown with (security_invoker = true) as select * from test_sets;"
        "grant select on shown to tenantry_app"
    ),
    "view of the invoker, in short": (
        "create view shown with (security_invoker) as select * from test_sets;"
        "grant select on shown to tenantry_app"
    ),
    "view of the owner's, who is walled off too": (
        "create view shown as select * from test_sets;"
        "alter view shown owner to tenantry_owner;"
        "grant select on shown to tenantry_app"
    ),
    "view that may not be read": "create view shown as select * from test_sets",
    "view of something else": (
        "create view shown as select 1 as name; grant select on shown to tenantry_app"
    ),
    "function that may not be called": (
        "create function shown() returns text language sql security definer as 'select ''x''';"
        "revoke execute on function shown() from public"
    ),
    "function of the caller": (
        "create function shown() returns setof test_sets language sql as 'select * from test_sets'"
    ),
    "names always quoted": "alter role {login} set quote_all_identifiers = on",
    "another search path": "alter role {login} set search_path = ''",
    "row security off": "alter role {login} set row_security = off",
    "another role that reads": (
        "create role {login}_reader nologin;"
        "grant select on test_sets to {login}_reader;"
        "drop policy test_sets_tenant_wall on test_sets;"
        "create policy reads on test_sets for select to {login}_reader using (true);"
        "create policy test_sets_tenant_wall on test_sets as restrictive"
        f" using ({RULE} or current_user = '{{login}}_reader'::name) with check ({RULE})"
    ),
}


@pytest.mark.parametrize("statement", HARMLESS.values(), ids=HARMLESS)
def test_what_shows_nothing_is_no_alarm(attacked: Database, login: Account, statement: str) -> None:
    """What keeps to the wall, or cannot be used by the role, is not reported."""
    try:
        change(attacked, statement.replace("{login}", login.name))
        assert reasons_of(probed(login.url)) == ""
    finally:
        if "_reader" in statement:
            change(
                attacked,
                f"drop owned by {login.name}_reader cascade",
                f"drop role {login.name}_reader",
            )


# Roles


@pytest.mark.parametrize(
    ("options", "reason"), [("createrole", "CREATEROLE"), ("replication", "REPLICATION")]
)
def test_option_of_a_role_is_found(logins: Logins, options: str, reason: str) -> None:
    """A role that can grant itself others, or copy the server, is no unprivileged one."""
    powerful = logins("tenantry_app", options=options)
    assert reason in reasons_of(probed(powerful.url))
    assert reason in reasons_of(probed(logins("tenantry_app", powerful.name).url))


def test_member_of_the_authenticator_is_found(logins: Logins) -> None:
    """A login that can become the authenticator reads the tokens of all tenants."""
    found = probed(logins("tenantry_app", DEFAULT_CONFIG.authenticator_role).url)
    assert not found.enforced
    assert "reads the tokens of all tenants" in reasons_of(found)


@pytest.mark.parametrize("privilege", ["trigger", "references", "references (id)", "truncate"])
def test_privilege_that_goes_round_the_wall_is_found(
    attacked: Database, login: Account, privilege: str
) -> None:
    """Triggers, foreign keys and TRUNCATE see rows that row security hides."""
    change(attacked, f"grant {privilege} on test_sets to tenantry_app")
    found = probed(login.url)
    assert found_in(found) == ["public.test_sets"]
    assert "TRUNCATE it, REFERENCE it or plant a trigger" in reasons_of(found)


BACK: dict[str, tuple[tuple[str, ...], str]] = {
    "session authorization": (("set session authorization {login}",), ""),
    "role": (("set role {login}",), ""),
    "session authorization, at the start": ((), "-c session_authorization={login}"),
    "role, at the start": ((), "-c role={login}"),
}


@pytest.mark.parametrize(("before", "options"), BACK.values(), ids=BACK)
def test_role_that_can_be_left_is_found(
    attacked: Database, login: Account, before: tuple[str, ...], options: str
) -> None:
    """A superuser who acts as the application's login can stop to, and is known for what it is."""
    found = probed(
        attacked.superuser_url,
        *(statement.replace("{login}", login.name) for statement in before),
        options=options.replace("{login}", login.name),
    )
    assert "is superuser" in reasons_of(found)


def test_role_that_is_reached_by_set_alone_is_found(
    attacked: Database, login: Account, logins: Logins
) -> None:
    """What a role may read that this one can only SET ROLE to is within its reach."""
    other = logins()
    with cursor_of(attacked.superuser_url) as cursor:
        cursor.execute("show server_version_num")
        inherit = "with inherit false" if int(cursor.fetchone()[0]) >= 160000 else ""
    change(
        attacked,
        f"grant {other.name} to {login.name} {inherit}",
        "create table plain (organization_id uuid, name text)",
        f"insert into plain values ('{B}', 'b1')",
        f"grant select on plain to {other.name}",
        f"grant usage on schema public to {other.name}",
    )
    assert found_in(probed(login.url)) == ["public.plain"]
    assert "'b1'" in read_as_a(login, f"set role {other.name}", "select name from plain")


# What a policy means


def test_planted_operator_does_not_pass_for_the_rule(attacked: Database, login: Account) -> None:
    """A policy that reads like the rule and compares by an operator of its own is no rule."""
    change(
        attacked,
        "create function public.always(text, uuid) returns boolean language sql immutable"
        " as 'select true'",
        "create operator public.= (leftarg = text, rightarg = uuid, function = public.always)",
        "create table documents (organization_id text, name text)",
        f"insert into documents values ('{B}', 'b1')",
        "alter table documents enable row level security",
        "alter table documents force row level security",
        f"create policy rule on documents using ({RULE})",
        f"create policy wall on documents as restrictive using ({RULE})",
        "grant select on documents to tenantry_app",
    )
    assert found_in(probed(login.url)) == ["public.documents"]
    assert "'b1'" in read_as_a(login, "select name from documents")


PLANTED_SETTING = (
    "create schema evil",
    "grant usage on schema evil to public",
    "create function evil.current_setting(text, boolean) returns text language sql stable"
    f" as 'select ''{B}''::text'",
    "set search_path = evil, pg_catalog, public",
    f"alter policy test_sets_tenant on test_sets using ({RULE}) with check ({RULE})",
    f"alter policy test_sets_tenant_wall on test_sets using ({RULE}) with check ({RULE})",
)


def test_planted_function_does_not_pass_for_the_rule(attacked: Database, login: Account) -> None:
    """A policy that reads a setting by a function of its own is no rule, whatever the search path.

    The path is the role's own, in which the planted function goes by its bare name.
    """
    change(attacked, *PLANTED_SETTING)
    change(attacked, f"alter role {login.name} set search_path = evil, pg_catalog, public")
    assert found_in(probed(login.url)) == ["public.test_sets"]
    assert "'b1'" in read_as_a(login, READ)


def test_without_the_probes_own_search_path_the_planted_function_passes(
    attacked: Database, login: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path tells a planted function, and so does what is recorded: without both, it passes."""
    change(attacked, *PLANTED_SETTING)
    change(attacked, f"alter role {login.name} set search_path = evil, pg_catalog, public")
    pinned, *others = probe.__globals__["_SETTINGS"]
    assert pinned == "set local search_path = pg_catalog, pg_temp"
    monkeypatch.setitem(probe.__globals__, "_SETTINGS", tuple(others))
    assert "public.test_sets" in found_in(probed(login.url))
    query = probe.__globals__["_PROBE"]
    assert query.count("is_plain and ") == 3
    monkeypatch.setitem(probe.__globals__, "_PROBE", query.replace("is_plain and ", ""))
    assert "public.test_sets" not in found_in(probed(login.url))


def test_planted_cast_is_found_where_the_policy_prints_like_the_rule(
    attacked: Database, login: Account
) -> None:
    """The server applies a cast that somebody has added, and writes it as it writes its own."""
    change(
        attacked,
        "create schema planted",
        "create function planted.to_uuid(text) returns uuid language sql "
        f"as $$ select '{B}'::uuid $$",
        "create cast (text as uuid) with function planted.to_uuid(text)",
        "drop policy test_sets_tenant on test_sets",
        "drop policy test_sets_tenant_wall on test_sets",
        f"create policy test_sets_tenant on test_sets using ({RULE})",
        f"create policy test_sets_tenant_wall on test_sets as restrictive using ({RULE})",
    )
    assert "'b1'" in read_as_a(login, READ)
    found = probed(login.url)
    assert found_in(found) == ["public.test_sets"]
    assert "its policies let other rows through" in reasons_of(found)

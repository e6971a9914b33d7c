import psycopg2
import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import TWO_TENANTS, answer

NAME = 'odd."all ""of\'\n;"'
BODY = (
    "language sql security definer set search_path = pg_catalog, pg_temp "
    "as 'select name from public.test_sets'"
)


@pytest.mark.parametrize("attributes", ["superuser", "bypassrls"])
def test_definer_function_exposed(audited: Audited, make_role: MakeRole, attributes: str) -> None:
    """It returns the rows of all tenants; the same function of a role that is bound does not."""
    role = make_role(attributes)
    audited.broken_by(
        "create schema odd",
        f"create function {NAME}(n integer) returns setof text {BODY}",
        f"revoke execute on function {NAME} from public",
        f"alter function {NAME} owner to {role}",
    )
    assert audited.audit().findings == ()
    # Without USAGE on its schema, too: a view, a default, another function may call it.
    audited.broken_by(f"grant execute on function {NAME} to tenantry_app")
    found = audited.finds("definer_function_exposed", f"{NAME}(integer)")
    assert f"runs as {role}" in found.problem
    audited.mended(f"alter function {NAME} owner to tenantry_owner")


def test_procedure_is_found(audited: Audited) -> None:
    """A procedure changes what a function returns."""
    audited.broken_by(
        "create procedure purge() language sql security definer "
        "set search_path = pg_catalog, pg_temp as 'delete from public.test_sets'",
        "revoke execute on procedure purge() from public",
    )
    assert audited.audit().findings == ()
    audited.broken_by("grant execute on procedure purge() to tenantry_app")
    assert audited.finds("definer_function_exposed", "public.purge()").object_type == "procedure"
    audited.mended("alter procedure purge() security invoker")


def test_function_returns_the_rows_of_all(audited: Audited) -> None:
    """The harm, and that it ends with an owner whom row security binds."""
    audited.broken_by(*TWO_TENANTS, f"create function names() returns setof text {BODY}")
    assert sorted(answer(audited, "select names()")) == [("mine",), ("theirs",)]
    audited.broken_by("alter function names() owner to tenantry_owner")
    assert answer(audited, "select names()") == [("mine",)]


HIDDEN = (
    "create schema hidden",
    "create function hidden.leak() returns text language sql security definer "
    "set search_path = pg_catalog, pg_temp "
    "as $$ select string_agg(name, ',' order by name) from public.test_sets $$",
)


@pytest.mark.parametrize(
    ("statements", "look"),
    [
        (
            (
                "create view shown with (security_invoker = true) as select hidden.leak() as names",
                "grant select on shown to tenantry_app",
            ),
            "select names from shown",
        ),
        (
            ("create function wrapped() returns text language sql return hidden.leak()",),
            "select wrapped()",
        ),
        (
            (
                "create function echoed(said text default hidden.leak()) returns text "
                "language sql as 'select said'",
            ),
            "select echoed()",
        ),
    ],
    ids=["view", "function", "default"],
)
def test_function_in_a_closed_schema_is_found(
    audited: Audited, statements: tuple[str, ...], look: str
) -> None:
    """What was found when its caller was created is called without USAGE on the schema."""
    audited.broken_by(*TWO_TENANTS, *HIDDEN, *statements)
    assert answer(audited, look) == [("mine,theirs",)]
    audited.finds("definer_function_exposed", "hidden.leak()")
    audited.mended("alter function hidden.leak() owner to tenantry_owner")


CLOSED = (
    "create function {name} returns {returns} language plpgsql security definer "
    "set search_path = pg_catalog, pg_temp as $$ begin {body} end $$"
)
ALL_NAMES = "return (select string_agg(name, ',' order by name) from public.test_sets);"


def test_function_of_an_aggregate_is_found(audited: Audited) -> None:
    """Who may call the aggregate needs no EXECUTE on what it is made of."""
    audited.broken_by(
        *TWO_TENANTS,
        CLOSED.format(name="step(text, text)", returns="text", body=ALL_NAMES),
        "revoke execute on function step(text, text) from public",
        "create aggregate all_names(text) (sfunc = step, stype = text, initcond = '')",
    )
    assert answer(audited, "select all_names('x')") == [("mine,theirs",)]
    found = audited.finds("definer_function_exposed", "public.step(text,text)")
    assert "the aggregate public.all_names(text) calls it" in found.problem
    audited.mended("drop aggregate all_names(text)")


def test_function_of_an_operator_class_is_found(audited: Audited) -> None:
    """A sort calls it, for whoever sorts."""
    audited.broken_by(
        *TWO_TENANTS,
        CLOSED.format(
            name="compared(text, text)",
            returns="integer",
            body="raise exception '%', (select string_agg(name, ',') from public.test_sets);",
        ),
        "revoke execute on function compared(text, text) from public",
        "create operator <<< (leftarg = text, rightarg = text, function = text_lt)",
        "create operator >>> (leftarg = text, rightarg = text, function = text_gt, "
        "commutator = operator(<<<))",
        "create operator class odd for type text using btree as operator 1 <<<, operator 2 <=, "
        "operator 3 =, operator 4 >=, operator 5 >>>, function 1 compared(text, text)",
    )
    with pytest.raises(psycopg2.errors.RaiseException, match="theirs"):
        answer(audited, "select * from (values ('a'), ('b')) as v (t) order by t using <<<")
    audited.finds("definer_function_exposed", "public.compared(text,text)")
    audited.mended("drop operator class odd using btree")


def test_function_called_by_another_is_found(audited: Audited, make_role: MakeRole) -> None:
    """The application cannot call it, and the owner of what it calls can."""
    role = make_role()
    audited.broken_by(
        *TWO_TENANTS,
        f"create function inner_one() returns setof text {BODY}",
        "revoke execute on function inner_one() from public",
        f"grant execute on function inner_one() to {role}",
        "create function outer_one() returns setof text "
        f"{BODY.replace('name from public.test_sets', 'public.inner_one()')}",
        f"alter function outer_one() owner to {role}",
        "revoke execute on function outer_one() from public",
        "grant execute on function outer_one() to tenantry_app",
    )
    assert sorted(answer(audited, "select outer_one()")) == [("mine",), ("theirs",)]
    found = audited.finds("definer_function_exposed", "public.inner_one()")
    assert "sets it off by public.outer_one()" in found.problem
    audited.mended("alter function inner_one() security invoker")


def test_function_of_a_role_that_the_login_can_become_is_found(
    audited: Audited, make_role: MakeRole
) -> None:
    """SET ROLE is enough, where nothing is inherited."""
    role = make_role()
    login = audited.database.app_url.username
    options = "" if audited.audit().server_version < "16" else "with inherit false"
    audited.broken_by(
        *TWO_TENANTS,
        f"create function names() returns setof text {BODY}",
        "revoke execute on function names() from public",
        f"grant usage on schema public to {role}",
        f"grant execute on function names() to {role}",
        f"grant {role} to {login} {options}",
    )
    assert len(answer(audited, f"set role {role}", "select names()")) == 2
    found = audited.audit().findings
    assert ("definer_function_exposed", "public.names()") in {(f.check, f.object) for f in found}


@pytest.mark.parametrize(
    ("attributes", "grants", "said"),
    [
        ("replication", (), "has REPLICATION"),
        ("createrole", (), "has CREATEROLE"),
        ("", ("grant pg_read_server_files to {}",), "is a member of pg_read_server_files"),
        ("", ("grant pg_read_all_data to {}",), "is a member of pg_read_all_data"),
        ("", ("grant select on pg_statistic to {}",), "may read pg_statistic"),
        (
            "",
            ("grant execute on function pg_read_binary_file(text) to {}",),
            "may read or write the server's files",
        ),
    ],
)
def test_owner_above_the_application_is_found(
    audited: Audited, make_role: MakeRole, attributes: str, grants: tuple[str, ...], said: str
) -> None:
    """Row security is not the only thing that an owner may be above."""
    role = make_role(attributes)
    audited.broken_by(
        *(grant.format(role) for grant in grants),
        f"create function names() returns setof text {BODY}",
        f"alter function names() owner to {role}",
        "revoke execute on function names() from public",
        "grant execute on function names() to tenantry_app",
    )
    assert said in audited.finds("definer_function_exposed", "public.names()").problem
    audited.mended("alter function names() owner to tenantry_owner")


def test_function_shows_the_statistics_of_all(audited: Audited, make_role: MakeRole) -> None:
    """The harm, by an owner whom row security binds: common values are rows' values."""
    role = make_role()
    audited.broken_by(
        *TWO_TENANTS,
        "insert into test_sets (organization_id, name) "
        "select organization_id, name || n from test_sets, generate_series(1, 3) as n",
        "analyze test_sets",
        f"grant select on pg_statistic to {role}",
        "create function seen() returns setof text language sql security definer "
        "set search_path = pg_catalog, pg_temp as "
        "$$ select stavalues1::text from pg_statistic "
        "where starelid = 'public.test_sets'::regclass $$",
        f"alter function seen() owner to {role}",
        "revoke execute on function seen() from public",
        "grant execute on function seen() to tenantry_app",
    )
    assert "theirs" in str(answer(audited, "select seen()"))
    audited.finds("definer_function_exposed", "public.seen()")

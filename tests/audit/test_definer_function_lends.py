import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import THEIRS, TWO_TENANTS, answer, walled

CREATE = (
    "create function lent({arguments}) returns setof text language {language} security definer "
    "set search_path = pg_catalog, pg_temp as $$ {body} $$"
)


def lent(body: str, *, owner: str, language: str = "sql", arguments: str = "") -> tuple[str, ...]:
    return (
        CREATE.format(arguments=arguments, language=language, body=body),
        f"alter function lent owner to {owner}",
        "revoke execute on function lent from public",
        "grant execute on function lent to tenantry_app",
    )


def test_definer_function_lends(audited: Audited) -> None:
    """The tables' owner is bound by FORCE, and can end it: a statement that is put together may."""
    audited.broken_by(
        *TWO_TENANTS,
        *lent(
            "begin execute $1; return; end",
            owner="tenantry_owner",
            language="plpgsql",
            arguments="command text",
        ),
    )
    call = "select lent('alter table public.test_sets no force row level security')"
    audited.finds("definer_function_lends", "public.lent(text)")
    answer(audited, call)
    audited.broken_by("alter table test_sets force row level security")
    audited.mended("alter function lent security invoker")


@pytest.mark.parametrize(
    "body",
    [
        "select name from public.test_sets",
        "select 'execute' union all select name from public.test_sets -- not truncate",
    ],
)
def test_plain_text_passes(audited: Audited, body: str) -> None:
    """What FORCE binds; words in literals and comments do nothing."""
    audited.broken_by(*TWO_TENANTS, *lent(f"{body}\n", owner="tenantry_owner"))
    assert audited.audit().findings == ()
    assert ("theirs",) not in answer(audited, "select lent()")


def test_partition_that_no_policy_holds_is_found(audited: Audited) -> None:
    """The application has no grant on it, and the function's owner needs none."""
    audited.broken_by(
        *walled("events", "body text", then="partition by hash (organization_id)"),
        "create table events_0 partition of events for values with (modulus 1, remainder 0)",
        "alter table events_0 owner to tenantry_owner",
        "create index on events (organization_id)",
        f"insert into events values ('{THEIRS}', 'theirs')",
    )
    assert audited.audit().findings == ()
    audited.broken_by(*lent("select body from public.events_0", owner="tenantry_owner"))
    assert answer(audited, "select lent()") == [("theirs",)]
    found = audited.finds("definer_function_lends", "public.lent()")
    assert "public.events_0, which no policy holds" in found.problem
    audited.mended("revoke execute on function lent from tenantry_app")


def test_messages_of_the_broker_are_found(audited: Audited) -> None:
    """The messages of all tenants are in one table, which only the broker's role reads."""
    audited.broken_by(
        "create table tenantry_broker.kombu_message (id integer, payload text)",
        "alter table tenantry_broker.kombu_message owner to tenantry_broker",
        "insert into tenantry_broker.kombu_message values (1, 'theirs')",
        *lent("select payload from tenantry_broker.kombu_message", owner="tenantry_broker"),
    )
    assert answer(audited, "select lent()") == [("theirs",)]
    found = audited.finds("definer_function_lends", "public.lent()")
    assert "tenantry_broker.kombu_message" in found.problem
    audited.mended("revoke execute on function lent from tenantry_app")


def test_owner_in_a_predefined_role_is_found(audited: Audited, make_role: MakeRole) -> None:
    """Monitoring shows the statements of all sessions."""
    role = make_role()
    audited.broken_by(
        f"grant pg_monitor to {role}", *lent("select query from pg_stat_activity", owner=role)
    )
    assert "pg_monitor" in audited.finds("definer_function_lends", "public.lent()").problem
    audited.mended("revoke execute on function lent from tenantry_app")


def test_look_up_of_ones_own_is_found(audited: Audited) -> None:
    """It compares a token with what it is given; whose rows it returns then, nobody knows."""
    audited.broken_by(
        "drop function authenticate_token(bytea)",
        *lent(
            "select name from public.api_tokens as t where t.token_hash = sought or true",
            owner="tenantry_authenticator",
            arguments="sought bytea",
        ),
    )
    found = audited.finds("definer_function_lends", "public.lent(bytea)")
    assert "its text" in found.problem
    audited.mended("drop function lent")

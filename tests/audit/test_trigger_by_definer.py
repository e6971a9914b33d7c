import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import TWO_TENANTS, answer

FUNCTION = (
    "create function counted() returns trigger language plpgsql security definer "
    "set search_path = pg_catalog, pg_temp as $$ begin "
    "perform count(*) from public.test_sets; return null; end $$"
)
TRIGGER = (
    'create trigger "count it" after insert on test_sets for each statement '
    "execute function counted()"
)


def test_trigger_by_definer(audited: Audited) -> None:
    """No EXECUTE is needed to set a trigger off; it counted the rows of all tenants."""
    audited.broken_by(FUNCTION, TRIGGER)
    found = audited.finds("trigger_by_definer", '"count it" on public.test_sets')
    assert "counted() is SECURITY DEFINER" in found.problem
    audited.mended("alter function counted() owner to tenantry_owner")


def test_owner_with_bypassrls_is_found(audited: Audited, make_role: MakeRole) -> None:
    """A role need not be a superuser to be above row security."""
    audited.broken_by(
        FUNCTION, f"alter function counted() owner to {make_role('bypassrls')}", TRIGGER
    )
    found = audited.finds("trigger_by_definer", '"count it" on public.test_sets')
    assert "has BYPASSRLS" in found.problem
    audited.mended("alter function counted() owner to tenantry_owner")


def test_harmless_triggers_pass(audited: Audited) -> None:
    """Disabled, where the application writes nothing, or of a function that runs as the caller."""
    audited.broken_by(
        FUNCTION,
        TRIGGER,
        'alter table test_sets disable trigger "count it"',
        "create table shared (n integer)",
        "create trigger t after insert on shared for each statement execute function counted()",
        "create function plain() returns trigger language plpgsql as 'begin return null; end'",
        "create trigger t after insert on tests for each statement execute function plain()",
    )
    assert audited.audit().findings == ()


def test_trigger_copies_the_rows_of_all(audited: Audited) -> None:
    """The harm, and that it ends with an owner whom row security binds."""
    audited.broken_by(
        *TWO_TENANTS,
        "create table copies (name text)",
        "alter table copies owner to tenantry_owner",
        "grant select on copies to tenantry_app",
        "create function copied() returns trigger language plpgsql security definer "
        "set search_path = pg_catalog, pg_temp as $$ begin "
        "insert into public.copies select name from public.test_sets; return null; end $$",
        "create trigger t after update on test_sets for each statement execute function copied()",
    )
    look = ("update test_sets set name = name", "select name from copies")
    assert sorted(answer(audited, *look)) == [("mine",), ("theirs",)]
    audited.broken_by("truncate copies", "alter function copied() owner to tenantry_owner")
    assert answer(audited, *look) == [("mine",)]


TELLING = (
    "create function told() returns trigger language plpgsql security definer "
    "set search_path = pg_catalog, pg_temp as $$ begin "
    "new.a := (select string_agg(name, ',' order by name) from public.test_sets); "
    "return new; end $$"
)


@pytest.mark.parametrize(
    ("inbox", "moment"),
    [
        (("create view inbox as select ''::text as q, ''::text as a",), "instead of"),
        (
            (
                "create table inbox (q text, a text)",
                "alter table inbox owner to tenantry_owner",
                "alter table inbox enable row level security, force row level security",
                "create policy p on inbox using (true)",
            ),
            "before",
        ),
        (
            ("create table inbox (q text, a text)", "alter table inbox owner to tenantry_owner"),
            "before",
        ),
        (
            (
                "create table inbox (q text, a text) partition by list (q)",
                "create table inbox_0 partition of inbox default",
                "alter table inbox owner to tenantry_owner",
                "alter table inbox_0 owner to tenantry_owner",
            ),
            "before",
        ),
    ],
    ids=["view", "forced", "plain", "partitioned"],
)
def test_trigger_on_what_is_no_tenant_table_is_found(
    audited: Audited, inbox: tuple[str, ...], moment: str
) -> None:
    """Whatever the application writes to sets triggers off, and RETURNING shows what they did."""
    audited.broken_by(
        *TWO_TENANTS,
        *inbox,
        TELLING,
        f"create trigger t {moment} insert on inbox for each row execute function told()",
        "grant select, insert on inbox to tenantry_app",
    )
    assert answer(audited, "insert into inbox (q) values ('x') returning a") == [("mine,theirs",)]
    found = {(each.check, each.object) for each in audited.audit().findings}
    assert ("trigger_by_definer", "t on public.inbox") in found
    audited.broken_by("alter function told() owner to tenantry_owner")
    assert answer(audited, "insert into inbox (q) values ('y') returning a") == [("mine",)]
    assert "trigger_by_definer" not in {each.check for each in audited.audit().findings}

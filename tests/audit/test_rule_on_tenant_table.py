import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import TWO_TENANTS, answer, walled

DOORBELL = 'odd."door ""bell""\'\n;"'


@pytest.mark.parametrize(
    "action",
    [
        "do instead select * from public.test_sets",
        "do also insert into public.test_sets (name) values ('planted')",
        "do instead select * from public.names",
    ],
)
def test_rule_on_tenant_table(audited: Audited, action: str) -> None:
    """A superuser's rule answered the application's INSERT with the rows of all tenants."""
    audited.broken_by(
        "create schema odd",
        "create view names as select name from test_sets",
        f"create table {DOORBELL} (n integer)",
        f'create rule "r \'r" as on insert to {DOORBELL} {action}',
    )
    assert audited.audit().findings == ()
    audited.broken_by(f"grant insert on {DOORBELL} to tenantry_app")
    found = audited.finds(
        "rule_on_tenant_table",
        f'"r \'r" on {DOORBELL}',
        besides=(("shared_table_writable", DOORBELL),),
    )
    assert "who is a superuser" in found.problem
    audited.mended(f"alter table {DOORBELL} owner to tenantry_owner")


def test_owner_with_bypassrls_is_found(audited: Audited, make_role: MakeRole) -> None:
    """A rule on the tenant table itself, which copies what is written."""
    role = make_role("bypassrls")
    audited.broken_by(
        *walled("notes", "body text"),
        "create table copies (body text)",
        "create rule copy as on insert to notes do also insert into copies values (new.body)",
        f"alter table notes owner to {role}",
    )
    found = audited.finds(
        "rule_on_tenant_table",
        "copy on public.notes",
        besides=(("function_execute_public", role),),
    )
    assert f"{role}, who has BYPASSRLS" in found.problem
    audited.mended("alter table notes owner to tenantry_owner")


def test_rules_that_reach_no_tenant_pass(audited: Audited) -> None:
    """Nor does one that is disabled, or whose owner row security binds."""
    audited.broken_by(
        *walled("notes", "body text"),
        "create rule kept as on delete to notes do instead nothing",
        "create table shared (n integer)",
        "create table log (n integer)",
        "create rule log as on insert to shared do also insert into log values (new.n)",
        "create rule off as on insert to shared do also select * from test_sets",
        "alter table shared disable rule off",
        "grant insert on shared to tenantry_app",
    )
    audited.finds("shared_table_writable", "public.shared")


def test_rule_shows_the_rows_of_all(audited: Audited) -> None:
    """The harm, and that it ends with an owner whom row security binds."""
    audited.broken_by(
        *TWO_TENANTS,
        "create table doorbell (n integer)",
        "create rule r as on insert to doorbell do instead select name from test_sets",
        "grant insert on doorbell to tenantry_app",
    )
    ring = "insert into doorbell values (1)"
    assert sorted(answer(audited, ring)) == [("mine",), ("theirs",)]
    audited.broken_by("alter table doorbell owner to tenantry_owner")
    assert answer(audited, ring) == [("mine",)]


def test_rule_that_reads_what_tenant_tables_inherit_from(audited: Audited) -> None:
    """By way of the parent the children's policies do not apply to the rule's owner either."""
    audited.broken_by(
        "create table base (body text)",
        *walled("notes", "id uuid", then="inherits (base)"),
        "create table doorbell (n integer)",
        "create rule r as on insert to doorbell do instead select body from base",
        "grant insert on doorbell to tenantry_app",
    )
    found = audited.finds(
        "rule_on_tenant_table",
        "r on public.doorbell",
        besides=(("shared_table_writable", "public.doorbell"),),
    )
    assert "public.base" in found.problem

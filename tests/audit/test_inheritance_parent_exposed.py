from tests.audit.conftest import Audited
from tests.audit.walls import THEIRS, answer, walled

PARENT = 'odd."base ""b\'\n"'
CHILD = (
    "create schema odd",
    f"create table {PARENT} (body text)",
    "create table middle () inherits (" + PARENT + ")",
    *walled("notes", "id uuid", then="inherits (middle)"),
)


def test_inheritance_parent_exposed(audited: Audited) -> None:
    """A query of the parent, at any distance, showed the rows of all tenants."""
    audited.broken_by(*CHILD)
    assert audited.audit().findings == ()
    audited.broken_by(f"grant select (body) on {PARENT} to tenantry_app")
    found = audited.finds("inheritance_parent_exposed", PARENT)
    assert "public.notes" in found.problem
    audited.mended("alter table notes no inherit middle")


def test_parent_with_an_open_policy_is_found(audited: Audited) -> None:
    """Of the parent's policies one without a tenant column cannot tell tenants apart."""
    audited.broken_by(*CHILD, f"grant select on {PARENT} to tenantry_app")
    audited.broken_by(f"alter table {PARENT} enable row level security")
    assert audited.audit().findings == ()
    audited.broken_by(f"create policy everybody on {PARENT} for select using (true)")
    audited.finds("inheritance_parent_exposed", PARENT)
    audited.mended(f"revoke select on {PARENT} from tenantry_app")


def test_children_of_a_tenant_table_are_judged_as_tables(audited: Audited) -> None:
    """The parent's policies hold what is read by way of it, their own what is read directly."""
    audited.broken_by(
        *walled("base"),
        "create table child () inherits (base)",
        "alter table child owner to tenantry_owner",
    )
    audited.finds(
        "row_security_off",
        "public.child",
        besides=(("wall_missing", "public.child"), ("permissive_missing", "public.child")),
    )
    audited.mended()


def test_parent_shows_the_rows_of_all(audited: Audited) -> None:
    """The harm: the child's wall holds the child's name alone."""
    audited.broken_by(
        "create table base (body text)",
        *walled("notes", "id uuid", then="inherits (base)"),
        f"insert into notes (organization_id, body) values ('{THEIRS}', 'secret')",
        "grant select on base to tenantry_app",
    )
    assert answer(audited, "select body from notes") == []
    assert answer(audited, "select body from base") == [("secret",)]


def test_truncate_of_the_parent_empties_the_children(audited: Audited) -> None:
    """It asks no policy, neither the children's nor the parent's."""
    audited.broken_by(
        "create table base (body text)",
        "alter table base enable row level security",
        *walled("notes", "id uuid", then="inherits (base)"),
        f"insert into notes (organization_id, body) values ('{THEIRS}', 'secret')",
        "grant truncate on base to tenantry_app",
    )
    audited.finds("inheritance_parent_exposed", "public.base")
    answer(audited, "truncate base")
    assert answer(audited, "select body from notes", tenant=THEIRS) == []
    audited.mended("revoke truncate on base from tenantry_app")


def test_child_in_a_schema_that_is_not_looked_at(audited: Audited) -> None:
    """It is read by way of its parent, and by its own name."""
    audited.broken_by(
        *walled("base"),
        "create schema rep",
        "create table rep.kid () inherits (base)",
        "grant select on rep.kid to tenantry_app",
    )
    audited.configure(schemas=("public",))
    found = {(each.check, each.object) for each in audited.audit().findings}
    assert ("row_security_off", "rep.kid") in found

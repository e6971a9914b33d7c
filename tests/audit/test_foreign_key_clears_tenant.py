import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import MINE, THEIRS, TWO_TENANTS, answer, walled

KEY = (
    'constraint "k k" foreign key (organization_id, "set) \\1") '
    "references test_sets (organization_id, id)"
)
NULLABLE = ("tenant_column_nullable", "organization_id on public.notes")


@pytest.mark.parametrize("rest", ["", " deferrable initially deferred", " not valid"])
def test_foreign_key_clears_tenant(audited: Audited, rest: str) -> None:
    """SET DEFAULT hands the row to whoever the default is; the statement names the other column."""
    audited.broken_by(
        *walled("notes", '"set) \\1" uuid'),
        f"alter table notes add {KEY} on delete set default{rest}",
    )
    besides = (("constraint_unenforced", '"k k" on public.notes'),) if "not" in rest else ()
    found = audited.finds("foreign_key_clears_tenant", '"k k" on public.notes', besides=besides)
    assert f'on delete set default ("set) \\1"){rest}'.lower() in (found.statement or "").lower()
    audited.mended()


def test_column_that_can_be_null_is_found(audited: Audited) -> None:
    """SET NULL takes the row from its tenant; where the column is not null it is an error."""
    audited.broken_by(
        *walled("notes", '"set) \\1" uuid'), f"alter table notes add {KEY} on delete set null"
    )
    assert audited.audit().findings == ()
    audited.broken_by("alter table notes alter column organization_id drop not null")
    audited.finds("foreign_key_clears_tenant", '"k k" on public.notes', besides=(NULLABLE,))
    audited.mended()


def test_update_is_for_a_person_to_change(audited: Audited) -> None:
    """ON UPDATE cannot name columns; and a key of the tenant column alone has no other."""
    audited.broken_by(
        *walled("notes", '"set) \\1" uuid'),
        f"alter table notes add {KEY} on update set default",
        "alter table notes add constraint alone foreign key (organization_id) "
        "references organizations on delete set default",
    )
    audited.finds("foreign_key_clears_tenant", '"k k" on public.notes', "alone on public.notes")
    audited.mended('alter table notes drop constraint alone, drop constraint "k k"')


def test_named_columns_pass(audited: Audited) -> None:
    """The column list is what keeps the tenant column out."""
    audited.broken_by(
        *walled("notes", '"set) \\1" uuid'),
        f'alter table notes add {KEY} on delete set null ("set) \\1")',
    )
    assert audited.audit().findings == ()


def test_list_that_names_the_tenant_column_is_replaced(audited: Audited) -> None:
    """The statement names what is left of the list."""
    audited.broken_by(
        *walled("notes", '"set) \\1" uuid'),
        f'alter table notes add {KEY} on delete set default (organization_id, "set) \\1")',
    )
    found = audited.finds("foreign_key_clears_tenant", '"k k" on public.notes')
    assert (found.statement or "").endswith(' ON DELETE SET DEFAULT ("set) \\1");')
    audited.mended()


def test_row_becomes_that_of_the_default(audited: Audited) -> None:
    """The harm: the end of one tenant hands its rows to another."""
    audited.broken_by(
        *TWO_TENANTS,
        *walled("notes", "body text"),
        f"alter table notes alter column organization_id set default '{MINE}', "
        "add foreign key (organization_id) references organizations on delete set default",
        f"insert into notes values ('{THEIRS}', 'secret')",
        "delete from organizations where name = 'theirs'",
    )
    assert answer(audited, "select body from notes") == [("secret",)]

from tests.audit.conftest import Audited
from tests.audit.walls import answer, walled


def test_tenant_column_nullable(audited: Audited) -> None:
    """A row of no tenant is shown to nobody, and its foreign keys are not checked."""
    audited.broken_by(
        *walled(
            '"select"',
            'id uuid, constraint "k k" foreign key (organization_id, id) '
            "references test_sets (organization_id, id), constraint whole "
            "foreign key (organization_id) references organizations match full",
        ),
        'alter table "select" alter column organization_id drop not null',
    )
    found = audited.finds("tenant_column_nullable", 'organization_id on public."select"')
    assert found.problem.endswith('not checked by "k k"')
    audited.mended()


def test_other_ways_to_say_not_null_pass(audited: Audited) -> None:
    """A domain and a check constraint do; a check that is not valid, or says more, does not."""
    drop = "alter table notes alter column organization_id drop not null"
    check = "alter table notes add constraint present check"
    audited.broken_by(*walled("notes"), drop, f"{check} (organization_id is not null)")
    assert audited.audit().findings == ()
    audited.broken_by(
        "alter table notes drop constraint present",
        f"{check} (organization_id is not null or id is null)",
    )
    audited.finds("tenant_column_nullable", "organization_id on public.notes")
    audited.mended()


def test_row_of_no_tenant_is_not_checked(audited: Audited) -> None:
    """The harm: a reference to nothing, in a row that nobody is shown."""
    audited.broken_by(
        *walled(
            "notes",
            "id uuid, foreign key (organization_id, id) references test_sets (organization_id, id)",
        ),
        "alter table notes alter column organization_id drop not null",
        "insert into notes values (null, gen_random_uuid())",
    )
    assert answer(audited, "select * from notes") == []

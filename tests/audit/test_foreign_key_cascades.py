import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import MINE, THEIRS, TWO_TENANTS, answer, walled

UNIQUE = "alter table test_sets add constraint bare unique (id)"
BARE = ("unique_without_tenant", "bare on public.test_sets")


@pytest.mark.parametrize(
    "action",
    [
        "on delete cascade",
        "on delete set null",
        "on delete set default (set_id)",
        "on update cascade on delete restrict",
    ],
)
def test_foreign_key_cascades(audited: Audited, action: str) -> None:
    """What one tenant does to its row changes another's; the mended key sets the same columns."""
    audited.broken_by(
        UNIQUE, *walled("notes", f"set_id uuid constraint k references test_sets (id) {action}")
    )
    found = audited.finds("foreign_key_cascades", "k on public.notes", besides=(BARE,))
    assert "another that refer to it" in found.problem
    audited.mended("alter table test_sets drop constraint bare")


def test_action_that_cannot_name_columns_is_for_a_person(audited: Audited) -> None:
    """ON UPDATE SET NULL of a paired key would clear the tenant column."""
    audited.broken_by(
        UNIQUE,
        *walled("notes", "set_id uuid constraint k references test_sets (id) on update set null"),
    )
    found = audited.finds("foreign_key_cascades", "k on public.notes", besides=(BARE,))
    assert found.statement is None
    audited.mended(
        "alter table notes drop constraint k", "alter table test_sets drop constraint bare"
    )


def test_paired_keys_may_cascade(audited: Audited) -> None:
    """They stay within the tenant, and so does the end of a tenant with all its rows."""
    audited.broken_by(
        *walled(
            "notes",
            "set_id uuid, foreign key (organization_id, set_id) "
            "references test_sets (organization_id, id) on update cascade on delete cascade, "
            "foreign key (organization_id) references organizations on delete cascade",
        )
    )
    assert audited.audit().findings == ()


def test_one_tenants_delete_takes_anothers_row(audited: Audited) -> None:
    """The harm: row security does not hold what a cascade does."""
    audited.broken_by(
        *TWO_TENANTS,
        UNIQUE,
        *walled("notes", "set_id uuid references test_sets (id) on delete cascade"),
        f"insert into notes values ('{MINE}', '{THEIRS}')",
    )
    assert answer(audited, "select count(*) from notes") == [(1,)]
    answer(audited, "delete from test_sets", tenant=THEIRS)
    assert answer(audited, "select count(*) from notes") == [(0,)]


def test_shared_table_that_the_application_may_change(audited: Audited) -> None:
    """What all tenants refer to one of them deletes, and with it the rows of all."""
    audited.broken_by(
        *TWO_TENANTS,
        "create table plans (id integer primary key)",
        "alter table plans owner to tenantry_owner",
        "alter table plans enable row level security, force row level security",
        "create policy everybody on plans using (true)",
        "insert into plans values (1)",
        "alter table test_sets add column plan integer default 1 "
        "constraint plan references plans on delete cascade",
        "grant select on plans to tenantry_app",
    )
    assert audited.audit().findings == ()
    audited.broken_by("grant delete on plans to tenantry_app")
    found = audited.finds(
        "foreign_key_cascades",
        "plan on public.test_sets",
        besides=(("shared_table_writable", "public.plans"),),
    )
    assert "ON DELETE CASCADE, and the application may change public.plans" in found.problem
    answer(audited, "delete from plans")
    assert answer(audited, "select name from test_sets", tenant=THEIRS) == []
    audited.mended("alter table test_sets drop column plan")

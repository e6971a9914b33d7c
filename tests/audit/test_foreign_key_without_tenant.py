import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import MINE, THEIRS, TWO_TENANTS, answer, walled

HOSTILE = 'odd."select ""me"" \'now\'\n;"'
# What a key on the id alone cannot be without.
UNIQUE = "alter table test_sets add constraint bare unique (id)"
BARE = ("unique_without_tenant", "bare on public.test_sets")


@pytest.mark.parametrize("action", ["", "on delete restrict on update restrict"])
def test_foreign_key_without_tenant(audited: Audited, action: str) -> None:
    """A key on the id alone refers into another tenant; hostile names reach the statement whole."""
    audited.broken_by(
        UNIQUE,
        "create schema odd",
        *walled(HOSTILE, f'"a ""b""" uuid constraint "k (x)" references test_sets (id) {action}'),
    )
    found = audited.finds("foreign_key_without_tenant", f'"k (x)" on {HOSTILE}', besides=(BARE,))
    assert "without pairing the tenant columns" in found.problem
    audited.mended("alter table test_sets drop constraint bare")


def test_mended_key_stays_deferrable(audited: Audited) -> None:
    """The statement keeps what the key was beside the columns."""
    audited.broken_by(
        UNIQUE,
        *walled(
            "notes",
            "set_id uuid constraint k references test_sets (id) deferrable initially deferred",
        ),
    )
    found = audited.finds("foreign_key_without_tenant", "k on public.notes", besides=(BARE,))
    assert found.statement == (
        "alter table public.notes drop constraint k, add constraint k "
        "foreign key (organization_id, set_id) references public.test_sets (organization_id, id) "
        "deferrable initially deferred;"
    )
    audited.mended("alter table test_sets drop constraint bare")


def test_tenant_columns_that_are_crossed_are_found(audited: Audited) -> None:
    """Holding both columns is not enough: the tenant's has to refer to the tenant's."""
    audited.broken_by(
        *walled(
            "notes",
            "other uuid, constraint k foreign key (other, organization_id) "
            "references test_sets (organization_id, id)",
        )
    )
    found = audited.finds("foreign_key_without_tenant", "k on public.notes")
    assert found.statement is None
    audited.mended("alter table notes drop constraint k")


def test_second_reference_to_the_tenants_table_is_found(audited: Audited) -> None:
    """A column that names any tenant tells which ones there are."""
    audited.broken_by(*walled("notes", "seen_by uuid constraint k references organizations"))
    found = audited.finds("foreign_key_without_tenant", "k on public.notes")
    assert "whether a tenant is there" in found.problem
    audited.mended("alter table notes drop constraint k")


def test_paired_and_shared_keys_pass(audited: Audited) -> None:
    """In any order of columns, in partitions, and into what belongs to no tenant."""
    audited.broken_by(
        "create table countries (code text primary key)",
        *walled(
            "notes",
            "id uuid, country text references countries, primary key (organization_id, id), "
            "foreign key (id, organization_id) references test_sets (id, organization_id)",
            then="partition by hash (organization_id)",
        ),
        "create table notes_0 partition of notes for values with (modulus 1, remainder 0)",
        "alter table notes_0 owner to tenantry_owner",
        *walled(
            "replies",
            "note uuid, foreign key (organization_id, note) references notes (organization_id, id) "
            "on delete cascade",
        ),
    )
    assert audited.audit().findings == ()


def test_reference_into_another_tenant_is_accepted(audited: Audited) -> None:
    """The harm: another tenant's id is accepted, one that is nobody's is not."""
    audited.broken_by(
        *TWO_TENANTS, UNIQUE, *walled("notes", "set_id uuid references test_sets (id)")
    )
    insert = "insert into notes (organization_id, set_id) values ('{}', {})"
    answer(audited, insert.format(MINE, f"'{THEIRS}'"))
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        answer(audited, insert.format(MINE, "gen_random_uuid()"))

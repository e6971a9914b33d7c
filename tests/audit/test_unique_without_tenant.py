import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import MINE, THEIRS, answer, walled


@pytest.mark.parametrize(
    "key",
    ["unique (id)", "unique (id) include (organization_id)", "unique nulls not distinct (id)"],
)
def test_unique_without_tenant(audited: Audited, key: str) -> None:
    """A key without the tenant column tells that another tenant has a value; INCLUDE is no key."""
    audited.broken_by(f'alter table test_sets add constraint "u (s)" {key}')
    found = audited.finds("unique_without_tenant", '"u (s)" on public.test_sets')
    assert found.object_type == "unique constraint"
    audited.mended()


def test_unique_index_is_found(audited: Audited) -> None:
    """An index enforces what a constraint does; its definition is for a person to change."""
    audited.broken_by("create unique index names on test_sets (lower(name))")
    audited.finds("unique_without_tenant", "names on public.test_sets")
    audited.mended("drop index names")


def test_key_that_others_refer_to_is_for_a_person_to_change(audited: Audited) -> None:
    """Foreign keys have to change with the key, in an order that no statement knows."""
    audited.broken_by(
        "alter table tests add constraint tests_id unique (id)",
        "create table notes (test_id uuid references tests (id))",
    )
    audited.finds("unique_without_tenant", "tests_id on public.tests")
    audited.mended("drop table notes", "alter table tests drop constraint tests_id")


def test_exclusion_of_other_tenants(audited: Audited) -> None:
    """The tenant column is in the key, and what conflicts is what another tenant has."""
    audited.broken_by(
        "create extension btree_gist",
        "revoke execute on all functions in schema public from public",
        *walled("notes", "name text"),
        "alter table notes add constraint k exclude using gist "
        "(organization_id with <>, name with =)",
        f"insert into notes values ('{THEIRS}', 'secret')",
    )
    with pytest.raises(psycopg2.errors.ExclusionViolation):
        answer(audited, f"insert into notes values ('{MINE}', 'secret')")
    found = audited.audit(only=["unique_without_tenant"]).findings
    assert [each.object for each in found] == ["k on public.notes"]
    assert "<>(uuid,uuid)" in found[0].problem
    audited.broken_by(
        "alter table notes drop constraint k",
        "alter table notes add constraint k exclude using gist "
        "(organization_id with =, name with =)",
    )
    assert audited.audit(only=["unique_without_tenant"]).findings == ()
    answer(audited, f"insert into notes values ('{MINE}', 'secret')")


def test_operator_class_that_finds_all_tenants_equal(audited: Audited) -> None:
    """Uniqueness is what its comparison says."""
    audited.broken_by(
        "create function same(uuid, uuid) returns integer language sql immutable as 'select 0'",
        'create operator class "same\'s" for type uuid using btree as operator 1 <, '
        "operator 2 <=, operator 3 =, operator 4 >=, operator 5 >, function 1 same(uuid, uuid)",
        *walled("notes", "name text"),
        'create unique index i on notes (organization_id "same\'s", name)',
        f"insert into notes values ('{THEIRS}', 'secret')",
    )
    with pytest.raises(psycopg2.errors.UniqueViolation):
        answer(audited, f"insert into notes values ('{MINE}', 'secret')")
    found = audited.audit(only=["unique_without_tenant"]).findings
    assert [each.object for each in found] == ["i on public.notes"]
    audited.broken_by("drop index i", "create unique index i on notes (organization_id, name)")
    assert audited.audit(only=["unique_without_tenant"]).findings == ()

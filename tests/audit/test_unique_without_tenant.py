import pytest
from tests.audit.conftest import Audited


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

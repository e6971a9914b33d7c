import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import THEIRS, answer, walled

NOTES = 'public."n ""o\'\n"'
SEQUENCE = 'public."n ""o\'\n_id_seq"'
NUMBERED = (("serial_identifier", f"id on {NOTES}"),)


@pytest.mark.parametrize(
    ("column", "granted"),
    [
        ("id bigserial", "select"),
        ("id bigserial", "update"),
        ("id bigint generated always as identity", "usage"),
    ],
)
def test_sequence_exposed(audited: Audited, column: str, granted: str) -> None:
    """last_value counts what all tenants write, setval makes their inserts fail."""
    audited.broken_by(
        *walled(NOTES, column), f"grant {granted} on sequence {SEQUENCE} to tenantry_app"
    )
    found = audited.finds("sequence_exposed", SEQUENCE, besides=NUMBERED)
    assert f"tenantry_app has {granted.upper()}" in found.problem
    audited.mended(f"alter table {NOTES} drop column id")


def test_sequence_of_a_default_is_found(audited: Audited) -> None:
    """One that belongs to no column, and what PUBLIC has."""
    audited.broken_by(
        "create sequence numbers",
        *walled("notes", "id bigint default nextval('numbers')"),
        "grant all on sequence numbers to public",
    )
    found = audited.finds(
        "sequence_exposed",
        "public.numbers",
        besides=(("serial_identifier", "id on public.notes"),),
    )
    assert (found.statement or "").startswith("revoke SELECT, UPDATE on sequence")
    audited.mended("alter table notes drop column id")


def test_what_an_insert_needs_passes(audited: Audited) -> None:
    """USAGE for a serial column; and sequences that no tenant table uses."""
    audited.broken_by(
        *walled(NOTES, "id bigserial"),
        f"grant usage on sequence {SEQUENCE} to tenantry_app",
        "create sequence shared",
        "grant all on sequence shared to tenantry_app",
    )
    audited.finds(*NUMBERED[0])


def test_sequence_is_read_and_set_back(audited: Audited) -> None:
    """The harm: it tells of others' rows, and their next insert fails."""
    audited.broken_by(
        *walled("notes", "id bigserial primary key"),
        f"insert into notes (organization_id) values ('{THEIRS}'), ('{THEIRS}')",
        "grant all on sequence notes_id_seq to tenantry_app",
    )
    assert answer(audited, "select last_value from notes_id_seq") == [(2,)]
    answer(audited, "select setval('notes_id_seq', 1, false)")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        answer(audited, f"insert into notes (organization_id) values ('{THEIRS}')", tenant=THEIRS)

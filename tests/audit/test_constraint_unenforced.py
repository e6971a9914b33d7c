import psycopg2
import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import MINE, THEIRS, TWO_TENANTS, answer, walled

KEY = "foreign key (organization_id, set_id) references test_sets (organization_id, id)"


@pytest.mark.parametrize(
    ("constraint", "object_type"),
    [(KEY, "foreign key"), ("check (organization_id <> set_id)", "check constraint")],
)
def test_constraint_unenforced(audited: Audited, constraint: str, object_type: str) -> None:
    """NOT VALID leaves the rows unchecked that were there."""
    audited.broken_by(
        *walled("notes", "set_id uuid"),
        f'alter table notes add constraint "k k" {constraint} not valid',
    )
    found = audited.finds("constraint_unenforced", '"k k" on public.notes')
    assert found.object_type == object_type
    audited.mended()


@pytest.mark.parametrize("table", ["test_results", "test_runs"])
def test_foreign_key_with_disabled_triggers_is_found(audited: Audited, table: str) -> None:
    """On either side: what a restore switches off to load rows is to be switched on again."""
    audited.broken_by(f"alter table {table} disable trigger all")
    found = [each for each in audited.audit().findings if table in each.object]
    assert {each.check for each in found} == {"constraint_unenforced"}
    assert {each.problem.split(":")[0] for each in found} == {"its triggers are disabled"}
    audited.finds("constraint_unenforced", *(each.object for each in audited.audit().findings))
    audited.mended()


def test_constraint_that_is_not_enforced_is_found(audited: Audited) -> None:
    """From PostgreSQL 18 on: a foreign key, and a check that a person has to write anew."""
    with_keyword = int(audited.audit().server_version.split(".")[0]) >= 18
    kind = "not enforced" if with_keyword else "not valid"
    audited.broken_by(
        *walled("notes", "set_id uuid"), f"alter table notes add constraint k {KEY} {kind}"
    )
    found = audited.finds("constraint_unenforced", "k on public.notes")
    assert kind.upper() in found.problem
    audited.mended()


def test_constraints_on_other_columns_pass(audited: Audited) -> None:
    """They keep no tenants apart; nor do triggers that are no foreign key's."""
    audited.broken_by(
        *walled("notes", "n integer"),
        "alter table notes add constraint positive check (n > 0) not valid",
        "create function nothing() returns trigger language plpgsql as 'begin return new; end'",
        "create trigger nothing before insert on notes for each row execute function nothing()",
        "alter table notes disable trigger nothing",
    )
    assert audited.audit().findings == ()


def test_reference_into_another_tenant_is_accepted(audited: Audited) -> None:
    """The harm, though the key pairs the tenant columns."""
    audited.broken_by(*TWO_TENANTS, *walled("notes", f"set_id uuid, {KEY}"))
    insert = f"insert into notes values ('{MINE}', '{THEIRS}')"
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        answer(audited, insert)
    audited.broken_by("alter table notes disable trigger all")
    answer(audited, insert)


def test_stored_replication_role_is_found(audited: Audited) -> None:
    """A superuser stored what the application may not set: no foreign key was checked."""
    database, login = audited.database.name, audited.database.app_url.username
    place = f'role {login} in database "{database}"'
    audited.broken_by(*TWO_TENANTS, f"alter {place} set session_replication_role = replica")
    try:
        answer(
            audited,
            "insert into test_set_tests (organization_id, test_set_id, test_id, position) "
            f"values ('{MINE}', '{THEIRS}', '{THEIRS}', 1)",
        )
        found = audited.finds("constraint_unenforced", "session_replication_role")
        assert "no foreign key is checked" in found.problem
        audited.mended()
    finally:
        audited.broken_by(f"alter {place} reset session_replication_role")

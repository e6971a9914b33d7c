import pytest
from tests.audit.conftest import Audited, MakeRole
from tests.audit.walls import RULE, THEIRS, TWO_TENANTS, answer

from tenantry.testing.administration import connected

REFERS = "foreign key (owner, test_id) references tests (organization_id, id)"


@pytest.mark.parametrize("grant", ["select", "select (body)", "insert", "update (body)"])
@pytest.mark.parametrize("name", ["public.comments", '"A b"."select ""it"" \'\n"'])
def test_shared_table_tenant_data(audited: Audited, grant: str, name: str) -> None:
    """A child table without the tenant column: nothing keeps the others from its rows."""
    audited.broken_by(
        'create schema "A b"',
        f"create table {name} (owner uuid, test_id uuid, body text, {REFERS})",
        f"grant {grant} on {name} to tenantry_app",
    )
    findings = audited.audit(only=["shared_table_tenant_data"]).findings
    assert [each.object for each in findings] == [name]
    assert "rows of public.tests" in findings[0].problem
    audited.broken_by(f"alter table {name} enable row level security, force row level security")
    assert audited.audit(only=["shared_table_tenant_data"]).findings == ()


VALUE = RULE.partition(" = ")[2]
NOTES = (
    *TWO_TENANTS,
    "create table notes (org uuid, test_set_id uuid, body text, "
    "foreign key (org, test_set_id) references test_sets (organization_id, id))",
    "alter table notes owner to tenantry_owner",
    f"insert into notes values ('{THEIRS}', '{THEIRS}', 'their note')",
    "grant select, update on notes to tenantry_app",
)


@pytest.mark.parametrize("force", ["", ", force row level security"])
@pytest.mark.parametrize(
    "policies",
    [
        ("create policy p on notes using (true)",),
        ("create policy p on notes for select using (org is not null)",),
        ("create policy p on notes to tenantry_app using (true)",),
        (
            "create policy p on notes using (true)",
            "create policy w on notes as restrictive using (true)",
        ),
        (
            "create policy p on notes using (true)",
            f"create policy w on notes as restrictive for update using (org = {VALUE})",
        ),
    ],
)
def test_row_security_that_keeps_nothing_apart(
    audited: Audited, force: str, policies: tuple[str, ...]
) -> None:
    """A policy that cannot tell one tenant from another is none."""
    audited.broken_by(*NOTES, f"alter table notes enable row level security{force}", *policies)
    assert answer(audited, "select body from notes") == [("their note",)]
    audited.finds(
        "shared_table_tenant_data",
        "public.notes",
        besides=(("shared_table_writable", "public.notes"),),
    )
    audited.mended(f"create policy wall on notes as restrictive using (org = {VALUE})")
    assert answer(audited, "select body from notes") == []


@pytest.mark.parametrize(
    "policies",
    [
        (f"create policy p on notes using (org = {VALUE})",),
        ("create policy p on notes using (test_set_id in (select id from test_sets))",),
        (
            "create policy p on notes using (true)",
            f"create policy w on notes as restrictive using (org = {VALUE})",
        ),
        ("create policy p on notes to tenantry_maintenance using (true)",),
        ("create policy p on notes using (false)",),
    ],
)
def test_row_security_that_keeps_apart(audited: Audited, policies: tuple[str, ...]) -> None:
    """By the setting, by the parent, by a wall, for another role, or for nobody."""
    audited.broken_by(*NOTES, "alter table notes enable row level security", *policies)
    assert answer(audited, "select body from notes") == []
    assert audited.audit().findings == ()


def test_rows_belong_by_way_of_another_table(audited: Audited) -> None:
    """Two keys away from the tenant, with a table between that the application may not read."""
    audited.broken_by(
        *TWO_TENANTS,
        "create table notes (id integer primary key, org uuid references organizations)",
        "create table attachments (note integer references notes, body text)",
        f"insert into notes values (1, '{THEIRS}')",
        "insert into attachments values (1, 'their file')",
        "grant select on attachments to tenantry_app",
    )
    assert answer(audited, "select body from attachments") == [("their file",)]
    audited.finds("shared_table_tenant_data", "public.attachments")
    audited.mended("revoke select on attachments from tenantry_app")


def test_tenant_column_under_another_name(audited: Audited) -> None:
    """Renamed, and its policies let all rows through."""
    audited.broken_by(
        "alter table test_results rename column organization_id to org",
        "drop policy test_results_tenant on test_results",
        "drop policy test_results_tenant_wall on test_results",
        "create policy p on test_results using (true)",
    )
    found = {(each.check, each.object) for each in audited.audit().findings}
    assert ("shared_table_tenant_data", "public.test_results") in found


def test_root_table_that_was_not_named(audited: Audited) -> None:
    """Renamed, it is what all tenant columns refer to, and lists all customers."""
    audited.broken_by(
        *TWO_TENANTS,
        "alter table organizations rename to orgs",
        "alter table orgs disable row level security, no force row level security",
        "revoke all on orgs from tenantry_app",
        "grant select on orgs to tenantry_app",
    )
    assert len(answer(audited, "select name from orgs")) == len(("mine", "theirs"))
    found = audited.finds("shared_table_tenant_data", "public.orgs")
    assert "public.test_sets" in found.problem
    audited.mended("revoke select on orgs from tenantry_app")


@pytest.mark.parametrize("grantee", ["tenantry_app", "public"])
@pytest.mark.parametrize("table", ["kombu_message", "celery_taskmeta"])
def test_tasks_and_results_of_all_tenants(audited: Audited, grantee: str, table: str) -> None:
    """They have no column for the tenant, in whatever schema they are."""
    audited.broken_by(
        "create schema celery",
        f"create table celery.{table} (id integer, payload text)",
        f"insert into celery.{table} values (1, 'theirs')",
        f"grant usage on schema celery to {grantee}",
        f"grant select on celery.{table} to {grantee}",
    )
    assert answer(audited, f"select payload from celery.{table}") == [("theirs",)]
    audited.finds("shared_table_tenant_data", f"celery.{table}")
    audited.mended(f"revoke select on celery.{table} from {grantee}")


def test_rows_of_all_tenants_are_read(audited: Audited) -> None:
    """The harm; and that a reference to the root table makes a row a tenant's too."""
    audited.broken_by(
        "create table notes (account uuid references organizations (id), body text)",
        "insert into organizations (name) values ('Acme')",
        "insert into notes select id, 'theirs' from organizations",
        "grant select on notes to tenantry_app",
    )
    with connected(audited.database.app_url) as cursor:
        cursor.execute("select body from notes")
        assert cursor.fetchall() == [("theirs",)]
    audited.finds("shared_table_tenant_data", "public.notes")
    audited.mended("revoke select on notes from tenantry_app")


def test_child_that_the_application_may_not_use_is_not_found(audited: Audited) -> None:
    """Nor one that refers to shared data alone."""
    audited.broken_by(
        f"create table comments (owner uuid, test_id uuid, {REFERS})",
        "create table countries (id integer primary key)",
        "create table cities (country_id integer references countries (id))",
        "grant select on countries, cities to tenantry_app",
    )
    assert audited.audit(only=["shared_table_tenant_data"]).findings == ()


def test_tasks_of_a_broker_whose_role_the_application_can_become(
    audited: Audited, make_role: MakeRole
) -> None:
    """One login for two works read all tenants' tasks, and forged some."""
    login, broker = make_role("noinherit"), make_role()
    audited.configure(app_role=login)
    audited.broken_by(
        "create table tenantry_broker.kombu_message (id integer, payload text)",
        f"alter table tenantry_broker.kombu_message owner to {broker}",
        f"grant {broker} to {login}",
    )
    audited.finds(
        "shared_table_tenant_data",
        "tenantry_broker.kombu_message",
        besides=(("role_reachable", login),),
    )
    audited.mended("select 1")

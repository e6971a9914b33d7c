import pytest
from tests.audit.conftest import Audited

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

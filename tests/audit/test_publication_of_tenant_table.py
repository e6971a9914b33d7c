import pytest
from tests.audit.conftest import Audited
from tests.audit.walls import walled

TENANT = "'11111111-1111-1111-1111-111111111111'"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("for table test_sets, endpoints", "of public.endpoints, public.test_sets"),
        ("for table test_sets (organization_id, id)", "of public.test_sets"),
        ("for table test_sets where (id is not null)", "of public.test_sets"),
        ("for table test_sets where (organization_id = id)", "of public.test_sets"),
        (f"for table tests where (organization_id = {TENANT} or true)", "of public.tests"),
        *(
            (f"for table tests where ({all_rows})", "of public.tests")
            for all_rows in (
                f"(organization_id = {TENANT}) is not null",
                f"not (organization_id = {TENANT})",
                f"(organization_id = {TENANT}) = false",
                f"(organization_id = {TENANT}) <> true",
                f"coalesce(organization_id = {TENANT}, true)",
                f"case when organization_id = {TENANT} then true else true end",
                f"id is not null or (prompt = 'x' and organization_id = {TENANT})",
                f"(id is not null and organization_id = {TENANT}) is not null",
                "prompt <> ' AND (organization_id = ''x'') AND '",
            )
        ),
        ("for tables in schema public", " more"),
        ("for all tables", " more"),
    ],
)
def test_publication_of_tenant_table(audited: Audited, what: str, said: str) -> None:
    """Row security does not filter what is replicated."""
    audited.broken_by(f'create publication "to ""all\'\n" {what}')
    found = audited.finds("publication_of_tenant_table", '"to ""all\'\n"')
    assert found.problem.endswith(said)
    audited.mended('drop publication "to ""all\'\n"')


def test_partitions_are_published_by_their_own_names(audited: Audited) -> None:
    """Unless the publication says that it sends them as the whole."""
    audited.broken_by(
        *walled("notes", then="partition by hash (organization_id)"),
        'create table "part" partition of notes for values with (modulus 1, remainder 0)',
        'alter table "part" owner to tenantry_owner',
        "create publication parts for table notes",
    )
    assert "public.part" in audited.finds("publication_of_tenant_table", "parts").problem
    audited.broken_by("alter publication parts set (publish_via_partition_root = true)")
    assert "public.notes" in audited.finds("publication_of_tenant_table", "parts").problem
    audited.mended("drop publication parts")


def test_what_is_one_tenants_or_nobodys_passes(audited: Audited) -> None:
    """A row filter on the tenant column, tables without tenants, a publication of nothing."""
    audited.broken_by(
        "create table countries (code text primary key)",
        "create publication one for table test_sets "
        f"where (id <> {TENANT} and organization_id = {TENANT})",
        "create publication shared for table countries",
        "create publication nothing",
    )
    assert audited.audit().findings == ()


def test_constant_of_any_type_and_text_passes(audited: Audited) -> None:
    """The text of the constant is no operator, and a varchar column is compared as text."""
    audited.configure(tenant_column="Tenant's (\"", id_type="text")
    column = '"Tenant\'s ("""'
    audited.broken_by(
        f"create table named ({column} varchar(20) not null)",
        f"create table numbered ({column} bigint not null)",
        f"create publication one for table named where ({column} = 'this OR (that'),"
        f" numbered where ({column} = 7)",
    )
    assert "publication_of_tenant_table" not in {each.check for each in audited.audit().findings}

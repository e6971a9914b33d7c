import pytest
from tests.audit.conftest import Audited


@pytest.mark.parametrize(
    "index",
    [
        'create index "a\'\n b" on test_sets (name)',
        'create index "select" on test_sets (lower(name) desc nulls last, id) where id is not null',
        "create index on_tests on test_sets using btree (created_at) include (name)",
        "create unique index u on test_sets (id, organization_id)",
    ],
)
def test_index_not_led_by_tenant(audited: Audited, index: str) -> None:
    """An expression, a partial index and INCLUDE too; names reach the statement as they are."""
    audited.broken_by(index)
    findings = audited.audit().findings
    assert [each.check for each in findings] == ["index_not_led_by_tenant"]
    audited.finds("index_not_led_by_tenant", findings[0].object)
    # With the tenant column at another place a person decides about the order.
    audited.mended(*(["drop index u"] if findings[0].statement is None else []))


def test_statement_keeps_what_the_index_is(audited: Audited) -> None:
    """The same index, but for its first column."""
    audited.broken_by('create index "i x" on tests (category desc, lower(prompt)) where id <> id')
    found = audited.finds("index_not_led_by_tenant", '"i x" on public.tests')
    assert found.statement == (
        'drop index public."i x"; CREATE INDEX "i x" ON public.tests USING btree (organization_id, '
        "category DESC, lower(prompt)) WHERE (id <> id);"
    )
    audited.mended()


def test_index_of_a_constraint_and_of_a_partitioned_table_are_a_persons(audited: Audited) -> None:
    """The constraint goes with its index; the partitions' indexes go with that of the whole."""
    audited.broken_by(
        "alter table tests add constraint k unique (id, organization_id)",
        "create table events (organization_id uuid not null default"
        " nullif(current_setting('app.current_organization', true), '')::uuid, name text)"
        " partition by hash (organization_id)",
        "create table events_0 partition of events for values with (modulus 1, remainder 0)",
        "create index by_name on events (name)",
        "alter table events owner to tenantry_owner",
        "alter table events_0 owner to tenantry_owner",
    )
    found = {
        each.object: each.statement
        for each in audited.audit(only=["index_not_led_by_tenant"]).findings
    }
    assert found == {"k on public.tests": None, "by_name on public.events": None}


@pytest.mark.parametrize(
    "index",
    [
        "create index i on test_sets (organization_id, name)",
        "create index i on test_sets using hash (organization_id)",
        # It has no order of columns to search by.
        "create index i on test_sets using gin (to_tsvector('simple', name))",
        "create index i on test_sets using brin (created_at)",
        # A row of the root table is a tenant.
        "create index i on organizations (name)",
        # How a token is found before there is a tenant.
        "create index i on api_tokens using hash (token_hash)",
    ],
)
def test_harmless_index_is_not_found(audited: Audited, index: str) -> None:
    """Led by the tenant, without an order of columns, or of what is no tenant's."""
    audited.broken_by(index)
    assert audited.audit().findings == ()

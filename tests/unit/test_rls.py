"""Policies as values, and the names and constants in their SQL."""

import pytest
from sqlalchemy import BigInteger, Column, MetaData, Table

from tenantry import TenancyConfig
from tenantry.models import TenantTable, shared_info, tenant_info
from tenantry.rls import (
    as_printed,
    create_isolation,
    drop_isolation,
    expected_isolation,
    qualified_name,
    quote_identifier,
    quote_literal,
    tenant_policies,
)

CONFIG = TenancyConfig(tenant_column="account_id", root_table="accounts", id_type="bigint")


@pytest.mark.parametrize(
    ("name", "quoted"),
    [("users", '"users"'), ('a"b', '"a""b"'), ("100%", '"100%"'), ("x:y\\z", '"x:y\\z"')],
)
def test_identifier_is_quoted_and_nothing_else_is_done_to_it(name: str, quoted: str) -> None:
    """Only the quote itself is doubled: a percent sign is the driver's affair."""
    assert quote_identifier(name) == quoted


def test_literal_doubles_its_quotes() -> None:
    """A constant ends where it should."""
    assert quote_literal("it's\\n") == "'it''s\\n'"


def test_qualified_name_has_a_schema_only_where_one_is_given() -> None:
    """Without a schema the search path decides, as it does for the models."""
    assert qualified_name("t", None) == '"t"'
    assert qualified_name("t", "s.x") == '"s.x"."t"'


@pytest.mark.parametrize("table", ["x" * 63, "é" * 31, "€" * 21])
def test_policy_names_of_long_tables_fit_and_differ(table: str) -> None:
    """PostgreSQL cuts names at 63 bytes; cut here, characters stay whole and suffixes stay."""
    declared = TenantTable("account_id", reader_role="reader")
    names = [policy.name for policy in tenant_policies(table, declared, CONFIG)]
    assert len(set(names)) == 3
    assert all(len(name.encode()) <= 63 for name in names)
    assert [name.rpartition("_")[2] for name in names] == ["reader", "tenant", "wall"]


def test_expected_isolation_follows_the_tables_own_word() -> None:
    """The tenant column, the root table's id, a declared column; and shared tables have none."""
    metadata = MetaData()
    by_column = Table("a", metadata, Column("account_id", BigInteger))
    root = Table("accounts", metadata, Column("id", BigInteger))
    declared = Table("b", metadata, Column("owner", BigInteger), info=tenant_info("owner"))
    shared = Table("c", metadata, Column("account_id", BigInteger), info=shared_info())
    reference = Table("d", metadata, Column("code", BigInteger))
    rules = {}
    for table in (by_column, root, declared):
        isolation = expected_isolation(table, CONFIG)
        assert isolation is not None
        assert isolation.enabled
        assert isolation.forced
        rules[table.name] = {policy.using for policy in isolation.policies}
    tenant = "nullif(current_setting('app.current_organization', true), '')::bigint"
    assert rules == {
        "a": {f'"account_id" = {tenant}'},
        "accounts": {f'"id" = {tenant}'},
        "b": {f'"owner" = {tenant}'},
    }
    assert expected_isolation(shared, CONFIG) is None
    assert expected_isolation(reference, CONFIG) is None


def test_check_equals_using_and_the_reader_gets_no_more_than_select() -> None:
    """No policy checks less than it shows, except for the reader, which writes nothing."""
    plain = tenant_policies("t", TenantTable("account_id"), CONFIG)
    assert [(policy.permissive, policy.command) for policy in plain] == [
        (True, "all"),
        (False, "all"),
    ]
    assert all(policy.using == policy.check for policy in plain)
    reader, tenant, wall = tenant_policies("t", TenantTable("account_id", "look'er"), CONFIG)
    assert (reader.command, reader.check, reader.roles) == ("select", None, ("look'er",))
    assert wall.check == tenant.check == tenant.using
    assert wall.using == f"{tenant.using} or current_user = 'look''er'::name"


def test_drop_undoes_create_in_reverse() -> None:
    """Policies go before row security does, so that the table is never open in between."""
    table = Table("t", MetaData(), Column("account_id", BigInteger), schema="s")
    isolation = expected_isolation(table, CONFIG)
    assert isolation is not None
    assert [statement.split(" using")[0] for statement in create_isolation(isolation)] == [
        'alter table "s"."t" enable row level security',
        'alter table "s"."t" force row level security',
        'create policy "t_tenant" on "s"."t" as permissive for all to public',
        'create policy "t_tenant_wall" on "s"."t" as restrictive for all to public',
    ]
    assert list(drop_isolation(isolation)) == [
        'drop policy if exists "t_tenant_wall" on "s"."t"',
        'drop policy if exists "t_tenant" on "s"."t"',
        'alter table "s"."t" no force row level security',
        'alter table "s"."t" disable row level security',
    ]


def test_printed_form_is_ordered_by_name_and_keeps_the_exception() -> None:
    """What the catalog is compared with: PostgreSQL's own casts, parentheses and capitals."""
    table = Table(
        "t",
        MetaData(),
        Column("account_id", BigInteger),
        info=tenant_info("account_id", reader_role="r"),
    )
    isolation = expected_isolation(table, CONFIG)
    assert isolation is not None
    rule = (
        "(account_id = (NULLIF(current_setting('app.current_organization'::text, true),"
        " ''::text))::bigint)"
    )
    printed = as_printed(isolation, "account_id", CONFIG).policies
    assert [(policy.name, policy.using, policy.check) for policy in printed] == [
        ("t_reader", "true", None),
        ("t_tenant", rule, rule),
        ("t_tenant_wall", f"({rule} OR (CURRENT_USER = 'r'::name))", rule),
    ]

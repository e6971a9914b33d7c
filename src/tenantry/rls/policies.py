"""Policies as values: what a tenant table must have, and whether it has it."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Table

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.models import TenantTable, current_tenant, tenant_table

Command = Literal["all", "select", "insert", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Policy:
    """One row security policy; expressions are SQL text, roles are names (`public` for PUBLIC)."""

    name: str
    using: str | None
    check: str | None
    command: Command = "all"
    permissive: bool = True
    roles: tuple[str, ...] = ("public",)


@dataclass(frozen=True, slots=True)
class TableIsolation:
    """The row security of one table: what it should be, or what the catalog says it is."""

    table: str
    schema: str | None
    enabled: bool
    forced: bool
    policies: tuple[Policy, ...]


def quote_identifier(name: str) -> str:
    """Return the name in double quotes, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(value: str) -> str:
    """Return the text as a string constant, for a server with standard_conforming_strings."""
    return "'" + value.replace("'", "''") + "'"


def qualified_name(table: str, schema: str | None) -> str:
    """Return the table's quoted name, led by its schema where one is given."""
    if schema is None:
        return quote_identifier(table)
    return f"{quote_identifier(schema)}.{quote_identifier(table)}"


def tenant_policies(
    table: str, declared: TenantTable, config: TenancyConfig = DEFAULT_CONFIG
) -> tuple[Policy, ...]:
    """Return the policies that keep this table's tenants apart.

    A permissive one lets a tenant's rows through, a RESTRICTIVE one for all commands and all
    roles keeps everything else out, so that neither a second permissive policy nor the loss of
    one of the two opens the table. With a reader role, that role's SELECT is let through both.

    Source: PostgreSQL manual, CREATE POLICY (permissive policies are OR-ed, restrictive AND-ed).
    """
    rule = f"{quote_identifier(declared.column)} = {current_tenant(config)}"
    if declared.reader_role is None:
        return (
            Policy(policy_name(table, "_tenant"), rule, rule),
            Policy(policy_name(table, "_tenant_wall"), rule, rule, permissive=False),
        )
    exempt = f"{rule} or current_user = {quote_literal(declared.reader_role)}::name"
    return (
        Policy(
            policy_name(table, "_reader"), "true", None, "select", roles=(declared.reader_role,)
        ),
        Policy(policy_name(table, "_tenant"), rule, rule),
        Policy(policy_name(table, "_tenant_wall"), exempt, rule, permissive=False),
    )


def expected_isolation(
    table: Table, config: TenancyConfig = DEFAULT_CONFIG
) -> TableIsolation | None:
    """Return the row security that a mapped table must have; None for a table shared by all."""
    declared = tenant_table(table, config)
    if declared is None:
        return None
    return TableIsolation(
        table=table.name,
        schema=table.schema,
        enabled=True,
        forced=True,
        policies=tenant_policies(table.name, declared, config),
    )


def policy_name(table: str, suffix: str) -> str:
    """Return `<table><suffix>`, the table's part shortened to PostgreSQL's 63 bytes."""
    room = 63 - len(suffix.encode())
    return table.encode()[:room].decode(errors="ignore") + suffix

"""Row-level security: policies as values, their DDL, and reading them back."""

from tenantry.rls.catalog import as_printed, printed_rule, read_isolation
from tenantry.rls.ddl import create_isolation, drop_isolation
from tenantry.rls.policies import (
    Policy,
    TableIsolation,
    expected_isolation,
    qualified_name,
    quote_identifier,
    quote_literal,
    tenant_policies,
)

__all__ = [
    "Policy",
    "TableIsolation",
    "as_printed",
    "create_isolation",
    "drop_isolation",
    "expected_isolation",
    "printed_rule",
    "qualified_name",
    "quote_identifier",
    "quote_literal",
    "read_isolation",
    "tenant_policies",
]

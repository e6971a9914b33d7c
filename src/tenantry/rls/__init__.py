"""Row-level security: policies as values, their DDL, and reading them back."""

from tenantry.rls.catalog import as_printed, printed_rule, read_isolation
from tenantry.rls.ddl import create_isolation, create_policy, drop_isolation
from tenantry.rls.policies import (
    Policy,
    TableIsolation,
    expected_isolation,
    qualified_name,
    quote_identifier,
    quote_literal,
    tenant_policies,
)
from tenantry.rls.searches import LONGEST_VALUE, Match, Search

__all__ = [
    "LONGEST_VALUE",
    "Match",
    "Policy",
    "Search",
    "TableIsolation",
    "as_printed",
    "create_isolation",
    "create_policy",
    "drop_isolation",
    "expected_isolation",
    "printed_rule",
    "qualified_name",
    "quote_identifier",
    "quote_literal",
    "read_isolation",
    "tenant_policies",
]

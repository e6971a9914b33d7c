"""The DDL statements that build and remove the wall, as text."""

from collections.abc import Iterator

from tenantry.rls.policies import Policy, TableIsolation, qualified_name, quote_identifier


def create_isolation(isolation: TableIsolation) -> Iterator[str]:
    """Yield the statements that enable and force row security and create the policies."""
    table = qualified_name(isolation.table, isolation.schema)
    yield f"alter table {table} enable row level security"
    yield f"alter table {table} force row level security"
    for policy in isolation.policies:
        yield create_policy(policy, table)


def drop_isolation(isolation: TableIsolation) -> Iterator[str]:
    """Yield the statements that undo `create_isolation`."""
    table = qualified_name(isolation.table, isolation.schema)
    for policy in reversed(isolation.policies):
        yield f"drop policy if exists {quote_identifier(policy.name)} on {table}"
    yield f"alter table {table} no force row level security"
    yield f"alter table {table} disable row level security"


def create_policy(policy: Policy, table: str) -> str:
    """Return the CREATE POLICY statement for a table whose name is already quoted."""
    roles = ", ".join(
        "public" if role == "public" else quote_identifier(role) for role in policy.roles
    )
    parts = [
        f"create policy {quote_identifier(policy.name)} on {table}",
        f"as {'permissive' if policy.permissive else 'restrictive'}",
        f"for {policy.command} to {roles}",
    ]
    if policy.using is not None:
        parts.append(f"using ({policy.using})")
    if policy.check is not None:
        parts.append(f"with check ({policy.check})")
    return " ".join(parts)

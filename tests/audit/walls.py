"""Tenant tables of a test's own, with all that the audit asks of one."""

from typing import Final

RULE: Final = (
    "organization_id = nullif(current_setting('app.current_organization', true), '')::uuid"
)


def walled(table: str, columns: str = "id uuid", *, then: str = "") -> tuple[str, ...]:
    """Return the statements that create a tenant table in which nothing is wrong.

    Args:
        table: its name, quoted where it has to be.
        columns: what stands beside the tenant column, and constraints.
        then: what follows the list of columns, as PARTITION BY.
    """
    return (
        f"create table {table} (organization_id uuid not null, {columns}) {then}",
        f"alter table {table} owner to tenantry_owner",
        f"alter table {table} enable row level security, force row level security",
        f"create policy tenant on {table} using ({RULE})",
        f"create policy wall on {table} as restrictive using ({RULE})",
        f"grant select, insert, update, delete on {table} to tenantry_app",
    )

"""Tenant tables of a test's own, with all that the audit asks of one."""

from typing import Any, Final

from tests.audit.conftest import Audited

from tenantry.testing.administration import connected

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


MINE: Final = "11111111-1111-1111-1111-111111111111"
THEIRS: Final = "22222222-2222-2222-2222-222222222222"

# Two organizations with a set of tests each, whose id is the organization's.
TWO_TENANTS: Final = (
    f"insert into organizations (id, name) values ('{MINE}', 'mine'), ('{THEIRS}', 'theirs')",
    "insert into test_sets (organization_id, id, name) select id, id, name from organizations",
)


def answer(audited: Audited, *statements: str, tenant: str = MINE) -> list[tuple[Any, ...]]:
    """Return what the last statement returns to the application's login with that tenant."""
    with connected(audited.database.app_url) as cursor:
        cursor.execute("select set_config('app.current_organization', %s, false)", [tenant])
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []

"""Alembic for tenant tables: operations, autogenerate comparison, and the body of an `env.py`.

Importing this package registers `op.isolate_table` and the other operations.
"""

from tenantry.alembic.comparison import compare_server_default
from tenantry.alembic.environment import run_migrations
from tenantry.alembic.operations import (
    AssumeRoleOp,
    CreateMaintenanceLogOp,
    CreateTenancyRolesOp,
    DefineTenantSettingsOp,
    DropMaintenanceLogOp,
    ExposeTableOp,
    IsolateTableOp,
    ReleaseTenancyRolesOp,
    UndefineTenantSettingsOp,
)

__all__ = [
    "AssumeRoleOp",
    "CreateMaintenanceLogOp",
    "CreateTenancyRolesOp",
    "DefineTenantSettingsOp",
    "DropMaintenanceLogOp",
    "ExposeTableOp",
    "IsolateTableOp",
    "ReleaseTenancyRolesOp",
    "UndefineTenantSettingsOp",
    "compare_server_default",
    "run_migrations",
]

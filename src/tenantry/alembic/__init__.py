"""Alembic for tenant tables: operations, autogenerate comparison, and the body of an `env.py`.

Importing this package registers `op.isolate_table` and the other operations, and the comparison.
"""

from tenantry.alembic import comparison as _comparison  # noqa: F401 - registers the comparators
from tenantry.alembic.broker import CreateBrokerSchemaOp, DropBrokerSchemaOp
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
from tenantry.alembic.searches import CreateTenantSearchOp, DropTenantSearchOp

__all__ = [
    "AssumeRoleOp",
    "CreateBrokerSchemaOp",
    "CreateMaintenanceLogOp",
    "CreateTenancyRolesOp",
    "CreateTenantSearchOp",
    "DefineTenantSettingsOp",
    "DropBrokerSchemaOp",
    "DropMaintenanceLogOp",
    "DropTenantSearchOp",
    "ExposeTableOp",
    "IsolateTableOp",
    "ReleaseTenancyRolesOp",
    "UndefineTenantSettingsOp",
    "run_migrations",
]

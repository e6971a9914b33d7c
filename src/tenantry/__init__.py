"""Tenant isolation for PostgreSQL with SQLAlchemy: a wall in the database, one way to its tenant.

Row-level security keeps tenants apart; `set_tenant` tells every transaction of a Session or a
Connection whose it is; where the wall is missing, explicit filters stand in or nothing runs.
"""

from tenantry.config import DEFAULT_CONFIG, Settings, TenancyConfig
from tenantry.context import Tenant
from tenantry.database import create_tenant_engine, protect_engine
from tenantry.environment import default_engine
from tenantry.exceptions import (
    ConfigurationError,
    CrossTenantError,
    DatabaseUnreachableError,
    EmbeddedServerError,
    InvalidTenantError,
    IsolationNotEnforcedError,
    MissingExtraError,
    MissingMigrationsError,
    MissingTenantError,
    RefusedMessageError,
    TenancyError,
    TenantSwitchError,
    UnfilterableStatementError,
    UnknownTenantError,
    UnsearchableError,
    WrongRoleError,
)
from tenantry.maintenance import create_maintenance_engine, maintenance_session
from tenantry.models import (
    TenantMixin,
    current_tenant,
    shared_info,
    tenant_index,
    tenant_info,
    tenant_reference,
)
from tenantry.probe import Isolation
from tenantry.search import TenantSearch
from tenantry.sessions import (
    SessionLocal,
    clear_tenant,
    default_sessions,
    get_tenant,
    set_tenant,
    tenant_scope,
)

__all__ = [
    "DEFAULT_CONFIG",
    "ConfigurationError",
    "CrossTenantError",
    "DatabaseUnreachableError",
    "EmbeddedServerError",
    "InvalidTenantError",
    "Isolation",
    "IsolationNotEnforcedError",
    "MissingExtraError",
    "MissingMigrationsError",
    "MissingTenantError",
    "RefusedMessageError",
    "SessionLocal",
    "Settings",
    "TenancyConfig",
    "TenancyError",
    "Tenant",
    "TenantMixin",
    "TenantSearch",
    "TenantSwitchError",
    "UnfilterableStatementError",
    "UnknownTenantError",
    "UnsearchableError",
    "WrongRoleError",
    "clear_tenant",
    "create_maintenance_engine",
    "create_tenant_engine",
    "current_tenant",
    "default_engine",
    "default_sessions",
    "get_tenant",
    "maintenance_session",
    "protect_engine",
    "set_tenant",
    "shared_info",
    "tenant_index",
    "tenant_info",
    "tenant_reference",
    "tenant_scope",
]

"""Whose a mapped object is."""

import functools
from typing import Any, Final

from sqlalchemy import inspect
from sqlalchemy.orm import InstanceState, Mapper

from tenantry.config import TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import CrossTenantError
from tenantry.models import tenant_column

_UNKNOWN: Final = object()


@functools.lru_cache(maxsize=4096)
def tenant_attribute(mapper: Mapper[Any], config: TenancyConfig) -> str | None:
    """Return the name of the mapped attribute that holds the tenant; None for shared tables."""
    for table in reversed(mapper.tables):
        column = tenant_column(table, config)
        if column is not None:
            return mapper.get_property_by_column(column).key
    return None


def check_owner(instance: object, tenant: Tenant | None, config: TenancyConfig) -> None:
    """Pass an object of this tenant, or one that has no owner yet.

    Raises:
        CrossTenantError: it belongs to another organization.
    """
    owner = _owner(instance, config)
    if owner is _UNKNOWN:
        raise CrossTenantError(
            f"{type(instance).__name__} does not tell its organization, which was not loaded: load "
            "it in this Session, or merge() it with loading"
        )
    if owner is not None and (tenant is None or owner != tenant.organization_id):
        raise CrossTenantError(
            f"{type(instance).__name__} belongs to organization {owner}, and the Session to "
            f"{tenant or 'no tenant'}: work on it in a Session of its own organization"
        )


def _owner(instance: object, config: TenancyConfig) -> object:
    state: InstanceState[Any] = inspect(instance, raiseerr=True)
    attribute = tenant_attribute(state.mapper, config)
    if attribute is None:
        return None
    owner = state.dict.get(attribute)
    if owner is None and state.key is not None:
        # An expired object, or one that is still being filled, is known by its primary key.
        column = state.mapper.columns[attribute]
        for key_column, value in zip(state.mapper.primary_key, state.key[1], strict=True):
            if key_column is column:
                return value
        if not state.persistent:
            return _UNKNOWN
    return owner

"""What the audit is told about a database, and how its SQL files read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.exceptions import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditConfig:
    """What a database calls its tenants, and which part of it is looked at.

    Attributes:
        tenancy: the settings, the tenant column, the roles.
        id_type: the type of ids, where it is one that the session layer does not know, such as
            text; None for the tenancy's.
        root_column: the column of the root table that the setting is compared with.
        root_required: a database without the root table is a finding.
        token_table: the table on which the authenticator role is the one exception to the wall.
        schemas: schemas to look at; empty for all but the system's.

    Raises:
        ConfigurationError: the id type is empty.
    """

    tenancy: TenancyConfig = DEFAULT_CONFIG
    id_type: str | None = None
    root_column: str = "id"
    root_required: bool = False
    token_table: str = "api_tokens"  # noqa: S105, the name of a table
    schemas: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.id_type is not None and not self.id_type.strip():
            raise no_type(self.id_type)

    @staticmethod
    def of(config: "AuditConfig | TenancyConfig") -> "AuditConfig":
        """Return the configuration itself, or one that takes its names from the tenancy's."""
        return config if isinstance(config, AuditConfig) else AuditConfig(tenancy=config)

    def settings(self) -> Mapping[str, str]:
        """Return the settings `tenantry.*` that the SQL files read, by name."""
        tenancy = self.tenancy
        return {
            "tenantry.tenant_column": tenancy.tenant_column,
            "tenantry.id_type": tenancy.id_type if self.id_type is None else self.id_type,
            "tenantry.organization_setting": tenancy.organization_setting,
            "tenantry.user_setting": tenancy.user_setting,
            "tenantry.app_role": tenancy.app_role,
            "tenantry.authenticator_role": tenancy.authenticator_role,
            "tenantry.root_table": tenancy.root_table,
            "tenantry.root_required": "true" if self.root_required else "false",
            "tenantry.root_column": self.root_column,
            "tenantry.token_table": self.token_table,
            "tenantry.schemas": _array(self.schemas),
        }


DEFAULT_AUDIT: Final = AuditConfig()


def no_type(written: str) -> ConfigurationError:
    """Return what to raise where this cannot be the name of a type."""
    return ConfigurationError(
        f"the id type {written!r} (--id-type, id_type) cannot be the name of a type: use uuid, "
        "bigint, integer or text"
    )


def _array(names: tuple[str, ...]) -> str:
    """Return the names as PostgreSQL writes an array."""
    quoted = (name.replace("\\", "\\\\").replace('"', '\\"') for name in names)
    return "{" + ",".join(f'"{name}"' for name in quoted) + "}"

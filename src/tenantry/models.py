"""What makes a mapped table a tenant table: its columns, keys and references."""

import uuid
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Column, ForeignKeyConstraint, FromClause, Index, Table, Uuid, text
from sqlalchemy.orm import Mapped, declared_attr, mapped_column

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.exceptions import ConfigurationError

INFO_KEY: Final = "tenantry"


@dataclass(frozen=True, slots=True)
class TenantTable:
    """How one table belongs to its tenant.

    Args:
        column: the column that holds the organization's id.
        reader_role: a role that may SELECT from this table before a tenant is known, the one
            exception to the wall; meant for the owner of a function that looks up a token.
    """

    column: str
    reader_role: str | None = None


def tenant_info(
    column: str = DEFAULT_CONFIG.tenant_column, *, reader_role: str | None = None
) -> dict[str, dict[str, str | None] | None]:
    """Return the `Table.info` that declares a tenant table, for `__table_args__`.

    Plain values, since Alembic writes a table's info into revision files.
    """
    return {INFO_KEY: {"column": column, "reader_role": reader_role}}


def shared_info() -> dict[str, dict[str, str | None] | None]:
    """Return the `Table.info` that declares a table shared by all tenants in spite of its column.

    The probe and the audit read the catalog, not the models: they still report such a table.
    """
    return {INFO_KEY: None}


def tenant_table(table: Table, config: TenancyConfig = DEFAULT_CONFIG) -> TenantTable | None:
    """Return how the table belongs to its tenant, or None for a table shared by all.

    A table says so itself in `Table.info` (see `tenant_info`), or has the tenant column, or is
    the root table, where the tenant is the row's own id.

    Raises:
        ConfigurationError: the declared tenant column does not exist.
    """
    declared: TenantTable | None
    if INFO_KEY in table.info:
        info = table.info[INFO_KEY]
        declared = None if info is None else TenantTable(**info)
    elif config.tenant_column in (names := {column.name for column in table.c}):
        declared = TenantTable(config.tenant_column)
    elif table.name == config.root_table and "id" in names:
        declared = TenantTable("id")
    else:
        declared = None
    if declared is not None and all(column.name != declared.column for column in table.c):
        raise ConfigurationError(
            f"table {table.fullname!r} is declared as a tenant table by its column "
            f"{declared.column!r}, which it does not have"
        )
    return declared


def tenant_column(table: Table, config: TenancyConfig = DEFAULT_CONFIG) -> Column[Any] | None:
    """Return the column that holds the tenant, or None for a table shared by all."""
    declared = tenant_table(table, config)
    return None if declared is None else named_column(table, declared.column)


def named_column(table: FromClause, name: str) -> Column[Any]:
    """Return the column of this name in the database; its key in Python may differ."""
    return next(column for column in table.c if isinstance(column, Column) and column.name == name)


def extends_tenant_table(table: Table, config: TenancyConfig = DEFAULT_CONFIG) -> bool:
    """Whether a table without the tenant column shares its rows' keys with one that has it.

    As the child in joined-table inheritance does: nothing walls such a table off.
    """
    return any(
        tenant_table(key.column.table, config) is not None
        for column in table.primary_key
        for key in column.foreign_keys
    )


def current_tenant(config: TenancyConfig = DEFAULT_CONFIG) -> str:
    """Return the SQL expression of the tenant that the settings name; NULL where there is none.

    The one definition of it: policies, column defaults and the probe all use this text. NULLIF
    because a setting reads as '' once a transaction-local value has ended, and ''::uuid is an
    error; not wrapped in a sub-select, so that the planner knows the tenant and estimates its
    rows.

    Source: PostgreSQL manual, 9.28.1 and 5.9 Row Security Policies.
    """
    return f"nullif(current_setting('{config.organization_setting}', true), '')::{config.id_type}"


class TenantMixin:
    """Gives a model the two columns and the primary key of a tenant table.

    `organization_id` is filled by the database from the bound tenant, `id` by the application or
    the database. The primary key is `(organization_id, id)`: it makes foreign keys tenant-safe,
    serves each tenant from its own part of the index and lets the table be distributed.
    """

    @declared_attr
    def organization_id(cls) -> Mapped[uuid.UUID]:  # noqa: N805 - SQLAlchemy passes the class
        """The tenant that the row belongs to."""
        return mapped_column(
            Uuid, primary_key=True, server_default=text(current_tenant()), sort_order=-20
        )

    @declared_attr
    def id(cls) -> Mapped[uuid.UUID]:  # noqa: N805
        """The row's id, unique within its tenant."""
        return mapped_column(
            Uuid,
            primary_key=True,
            default=uuid.uuid4,
            server_default=text("gen_random_uuid()"),
            sort_order=-10,
        )


def tenant_reference(
    target: str,
    column: str,
    *,
    ondelete: str = "NO ACTION",
    tenant_column: str = DEFAULT_CONFIG.tenant_column,
) -> ForeignKeyConstraint:
    """Return a foreign key that cannot point into another tenant.

    PostgreSQL checks foreign keys without row-level security, so a key on the id alone tells
    whether another tenant's row exists. This one carries the tenant on both sides.

    Args:
        target: the referenced table, `name` or `schema.name`, with primary key (tenant, id).
        column: the referencing column.
        ondelete: NO ACTION, RESTRICT, CASCADE or SET NULL; the last empties this column alone and
            leaves the tenant column as it is.
        tenant_column: the tenant column's name on both sides.

    Source: PostgreSQL manual, 5.9 ("referential integrity checks … always bypass row security")
    and CREATE TABLE, `ON DELETE SET NULL (column)`.
    """
    action = f"SET NULL ({column})" if ondelete.upper() == "SET NULL" else ondelete
    return ForeignKeyConstraint(
        [tenant_column, column],
        [f"{target}.{tenant_column}", f"{target}.id"],
        ondelete=action,
    )


def tenant_index(
    name: str, *columns: str, tenant_column: str = DEFAULT_CONFIG.tenant_column
) -> Index:
    """Return an index led by the tenant column, as each access path of a tenant table must be."""
    return Index(name, tenant_column, *columns)

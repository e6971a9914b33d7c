"""One row in every tenant table, made from the metadata alone."""

import datetime
import decimal
import secrets
import uuid
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, Connection, MetaData, Table, insert, select, types
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import TenantId
from tenantry.exceptions import ConfigurationError
from tenantry.models import tenant_column


def seed_tenant(
    connection: Connection,
    metadata: MetaData,
    tenant: TenantId,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    examples: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Insert one row of the tenant's into every tenant table, and return them by table.

    References are followed, columns with a default are left to it, the others get a value of
    their type. The connection must be allowed to write for the tenant; committing is the caller's.

    Args:
        connection: bound to the tenant, or of a role that row security does not bind.
        metadata: of the mapped tables.
        tenant: the organization's id.
        config: what the database calls its tenants.
        examples: values, or functions without arguments that make one, by `table.column`; needed
            where a CHECK asks for more than a type, or a type is not known here.

    Raises:
        ConfigurationError: no row could be made for a table; the message says which and why.
    """
    rows: dict[str, dict[str, Any]] = {}
    for table in metadata.sorted_tables:
        column = tenant_column(table, config)
        if column is None:
            found = connection.execute(select(table).limit(1)).first()
            if found is not None:
                rows[table.fullname] = _by_key(table, found)
            continue
        values = _values(table, column, tenant, rows, examples or {})
        try:
            with connection.begin_nested():
                found = connection.execute(insert(table).values(values).returning(table)).one()
        except DBAPIError as error:
            raise ConfigurationError(
                f"no row could be made for tenant table {table.fullname!r}: "
                f"{str(error.orig).strip()}. Give seed_tenant() examples for its columns"
            ) from error
        rows[table.fullname] = _by_key(table, found)
    return rows


def _by_key(table: Table, found: Any) -> dict[str, Any]:
    return dict(zip((column.key for column in table.columns), found, strict=True))


def _values(
    table: Table,
    tenant_of: Column[Any],
    tenant: TenantId,
    rows: Mapping[str, Mapping[str, Any]],
    examples: Mapping[str, Any],
) -> dict[str, Any]:
    values: dict[str, Any] = {tenant_of.key: tenant}
    for reference in table.foreign_key_constraints:
        referred = rows.get(reference.referred_table.fullname)
        for element in reference.elements:
            if referred is not None:
                values.setdefault(element.parent.key, referred[element.column.key])
            elif element.parent.nullable:
                values.setdefault(element.parent.key, None)
    for column in table.columns:
        name = f"{table.fullname}.{column.name}"
        if name in examples:
            example = examples[name]
            values[column.key] = example() if callable(example) else example
        elif column.key not in values and not _fills_itself(column):
            values[column.key] = _value(column.type, name)
    return values


def _fills_itself(column: Column[Any]) -> bool:
    return (
        column.computed is not None
        or column.identity is not None
        or column.server_default is not None
        or column.default is not None
    )


def _value(type_: types.TypeEngine[Any], name: str) -> Any:
    token = secrets.token_hex(6)
    match type_:
        case types.TypeDecorator():
            return _value(type_.impl_instance, name)
        case types.Enum():
            return next(iter(type_.enum_class)) if type_.enum_class else type_.enums[0]
        case types.Uuid():
            return uuid.uuid4() if type_.as_uuid else str(uuid.uuid4())
        case types.Boolean():
            return False
        case types.Integer():
            return 1 + secrets.randbelow(500)
        case types.Float() | types.Numeric():
            return decimal.Decimal(1) if type_.asdecimal else 1.0
        case types.String():
            # At once a name, an address and a URL, since CHECKs like to ask for one of them.
            return f"https://{token}@tenantry.example/"[slice(type_.length)]
        case types.LargeBinary():
            return secrets.token_bytes(32)
        case types.DateTime():
            now = datetime.datetime.now(datetime.UTC)
            return now if type_.timezone else now.replace(tzinfo=None)
        case types.Date():
            return datetime.datetime.now(datetime.UTC).date()
        case types.Interval():
            return datetime.timedelta(seconds=1)
        case types.JSON():
            return {"example": token}
        case ARRAY() | types.ARRAY():
            return [_value(type_.item_type, name)]
    raise ConfigurationError(
        f"no value is known for column {name!r} of type {type_!r}: give seed_tenant() one in "
        "examples"
    )

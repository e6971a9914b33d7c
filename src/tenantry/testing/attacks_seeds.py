"""One row in every tenant table, made from the metadata alone."""

import datetime
import decimal
import secrets
import uuid
from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import Column, Connection, MetaData, Table, insert, select, text, types
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import StatementError

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import TenantId
from tenantry.exceptions import ConfigurationError
from tenantry.models import tenant_column
from tenantry.rls import qualified_name

# How many values of different shape there are for a type that a CHECK may be particular about.
_SHAPES: Final = 4
_DECORATED: Final[dict[int, Any]] = {1: {}, 2: []}
_CHECKED = text("""
select a.attname
from pg_catalog.pg_constraint c
join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
where c.conrelid = cast(:relation as regclass) and c.conname = :constraint
""")


def seed_tenant(
    connection: Connection,
    metadata: MetaData,
    tenant: TenantId,
    *,
    config: TenancyConfig = DEFAULT_CONFIG,
    examples: Mapping[str, Any] | None = None,
) -> dict[str, dict[str, Any]]:
    """Leave the tenant with a row in every tenant table, and return one of each by table.

    Where it has rows, one of them is taken, and others refer to it. References are followed,
    columns with a default are left to it, the others get a value of their type; if a CHECK refuses
    it, a value of another shape. The connection must be allowed to write for the tenant;
    committing is the caller's.

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
        existing = connection.execute(select(table).where(column == tenant).limit(1)).first()
        if existing is not None:
            rows[table.fullname] = _by_key(table, existing)
            continue
        found = _insert(connection, table, column, tenant, rows, examples or {})
        rows[table.fullname] = _by_key(table, found)
    return rows


def _insert(
    connection: Connection,
    table: Table,
    tenant_of: Column[Any],
    tenant: TenantId,
    rows: Mapping[str, Mapping[str, Any]],
    examples: Mapping[str, Any],
) -> Any:
    shapes: dict[str, int] = {}
    while True:
        values = _values(table, tenant_of, tenant, rows, examples, shapes)
        try:
            with connection.begin_nested():
                return connection.execute(insert(table).values(values).returning(table)).one()
        except (StatementError, TypeError, ValueError) as error:
            given = {c.name for c in table.columns if f"{table.fullname}.{c.name}" in examples}
            refused = _refused_columns(connection, table, error) - given
            for name in refused:
                shapes[name] = shapes.get(name, 0) + 1
            if not refused or max(shapes.values()) >= _SHAPES:
                raise ConfigurationError(
                    f"no row could be made for tenant table {table.fullname!r}: "
                    f"{str(getattr(error, 'orig', error)).strip()}. Give seed_tenant() examples "
                    "for its columns"
                ) from error


def _refused_columns(connection: Connection, table: Table, error: Exception) -> set[str]:
    """Return the columns of the CHECK that was violated, or whose own type does not take it."""
    diagnostics = getattr(getattr(error, "orig", error), "diag", None)
    if diagnostics is None:
        return {c.name for c in table.columns if isinstance(c.type, types.TypeDecorator)}
    if diagnostics.sqlstate != "23514":
        return set()
    found = connection.execute(
        _CHECKED,
        {
            "relation": qualified_name(table.name, table.schema),
            "constraint": diagnostics.constraint_name,
        },
    )
    return {name for (name,) in found if name in table.columns}


def _by_key(table: Table, found: Any) -> dict[str, Any]:
    return dict(zip((column.key for column in table.columns), found, strict=True))


def _values(
    table: Table,
    tenant_of: Column[Any],
    tenant: TenantId,
    rows: Mapping[str, Mapping[str, Any]],
    examples: Mapping[str, Any],
    shapes: Mapping[str, int],
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
            values[column.key] = _value(column.type, name, shapes.get(column.name, 0))
    return values


def _fills_itself(column: Column[Any]) -> bool:
    return (
        column.computed is not None
        or column.identity is not None
        or column.server_default is not None
        or column.default is not None
    )


def _value(type_: types.TypeEngine[Any], name: str, shape: int) -> Any:
    token = secrets.token_hex(6)
    match type_:
        case types.TypeDecorator():
            # What it takes in Python is known to the type alone, so it is tried.
            if shape in _DECORATED:
                return _DECORATED[shape]
            return _value(type_.impl_instance, name, shape)
        case types.Enum():
            return next(iter(type_.enum_class)) if type_.enum_class else type_.enums[0]
        case types.Uuid():
            return uuid.uuid4() if type_.as_uuid else str(uuid.uuid4())
        case types.Boolean():
            return False
        case types.Integer():
            return (1 + secrets.randbelow(30_000), 1 + secrets.randbelow(100), 1, 0)[shape]
        case types.Float() | types.Numeric():
            return decimal.Decimal(1) if type_.asdecimal else 1.0
        case types.String():
            # The first is at once a name, an address and a URL; the others a digest and a code.
            texts = (f"https://{token}@tenantry.example/", secrets.token_hex(32), token, "A")
            return texts[shape][slice(type_.length)]
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
            return [_value(type_.item_type, name, shape)]
    raise ConfigurationError(
        f"no value is known for column {name!r} of type {type_!r}: give seed_tenant() one in "
        "examples"
    )

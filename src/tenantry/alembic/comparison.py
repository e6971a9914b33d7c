"""Autogenerate: a tenant table whose wall is missing or differs is drift, like a missing column."""

import re
from typing import Any

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import UpgradeOps
from alembic.util import DispatchPriority
from sqlalchemy import Column, MetaData, String, func, select
from sqlalchemy.engine import Connection

from tenantry.alembic.operations import ExposeTableOp, IsolateTableOp
from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.models import TenantTable, tenant_table
from tenantry.rls import TableIsolation, as_printed, expected_isolation, read_isolation


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare_isolation(
    context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]
) -> None:
    """Add an operation for each tenant table of the models that the database does not wall off."""
    connection = context.connection
    metadata = context.metadata
    if connection is None or not isinstance(metadata, MetaData):
        return
    config = _tenancy(context)
    actual = {schema: read_isolation(connection, schema) for schema in schemas}
    for table in metadata.sorted_tables:
        declared = tenant_table(table, config)
        expected = expected_isolation(table, config)
        if declared is None or expected is None or table.schema not in schemas:
            continue
        if context.run_name_filters(table.name, "table", {"schema_name": table.schema}):
            found = actual[table.schema].get(table.name)
            wanted = as_printed(expected, _quoted(connection, declared.column), config)
            if found is None or not _walled(found, wanted):
                upgrade_ops.ops.append(_operation(table.name, table.schema, declared, config))


@renderers.dispatch_for(IsolateTableOp)
def render_isolate_table(_context: AutogenContext, operation: IsolateTableOp) -> str:
    """Render the operation into a revision file."""
    return _rendered("isolate_table", operation)


@renderers.dispatch_for(ExposeTableOp)
def render_expose_table(_context: AutogenContext, operation: ExposeTableOp) -> str:
    """Render the operation into a revision file."""
    return _rendered("expose_table", operation)


def compare_server_default(
    _context: Any,
    _inspected_column: Column[Any],
    _metadata_column: Column[Any],
    inspected_default: str | None,
    _metadata_default: Any,
    rendered_metadata_default: str | None,
) -> bool:
    """Tell whether two column defaults differ, for `context.configure(compare_server_default=…)`.

    They are compared as text without the casts and parentheses that PostgreSQL adds when it prints
    an expression. Alembic's own comparison evaluates both, which tells nothing of an expression
    whose value is NULL or new each time.
    """
    return _bare(inspected_default) != _bare(rendered_metadata_default)


def _walled(found: TableIsolation, wanted: TableIsolation) -> bool:
    return found.enabled and found.forced and set(wanted.policies) <= set(found.policies)


def _operation(
    table: str, schema: str | None, declared: TenantTable, config: TenancyConfig
) -> IsolateTableOp:
    column = None if declared.column == config.tenant_column else declared.column
    return IsolateTableOp(table, column=column, reader_role=declared.reader_role, schema=schema)


def _rendered(name: str, operation: IsolateTableOp) -> str:
    arguments = [repr(operation.table_name)]
    arguments += [
        f"{key}={value!r}"
        for key, value in (
            ("column", operation.column),
            ("reader_role", operation.reader_role),
            ("schema", operation.schema),
        )
        if value is not None
    ]
    return f"op.{name}({', '.join(arguments)})"


def _tenancy(context: AutogenContext) -> TenancyConfig:
    tenancy: TenancyConfig = context.opts.get("tenancy", DEFAULT_CONFIG)
    return tenancy


def _quoted(connection: Connection, name: str) -> str:
    return connection.scalars(select(func.quote_ident(name, type_=String))).one()


def _bare(default: str | None) -> str | None:
    if default is None:
        return None
    return re.sub(r"::(text|character varying|jsonb)\b|[()\s']", "", default.lower())

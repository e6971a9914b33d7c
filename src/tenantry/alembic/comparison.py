"""Autogenerate: a wall or a tenant default that is missing or differs is drift."""

import re
from typing import Any

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AlterColumnOp, DropTableOp, UpgradeOps
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import Column, DefaultClause, MetaData, String, Table, func, select
from sqlalchemy.engine import Connection

from tenantry.alembic.operations import ExposeTableOp, IsolateTableOp
from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.models import TenantTable, current_tenant, tenant_table
from tenantry.rls import TableIsolation, as_printed, expected_isolation, read_isolation


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare_isolation(
    context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]
) -> None:
    """Add an operation for each tenant table of the models that the database does not wall off.

    What is left of an older wall is taken down first, in the same revision, and so is the wall of
    a table that is dropped: a downgrade then builds it up again. Further policies are left alone:
    the wall contains them.
    """
    connection = context.connection
    metadata = context.metadata
    if connection is None or not isinstance(metadata, MetaData):
        return
    config = _tenancy(context)
    actual = {schema: read_isolation(connection, schema) for schema in schemas}
    for table in metadata.sorted_tables:
        declared = tenant_table(table, config)
        expected = expected_isolation(table, config)
        if declared is None or expected is None or not _compared(context, table, schemas):
            continue
        found = actual[table.schema].get(table.name)
        wanted = as_printed(expected, _quoted(connection, declared.column), config)
        if found is None or not _walled(found, wanted):
            operation = _operation(table, declared, config)
            if found is not None and (found.enabled or found.forced or found.policies):
                upgrade_ops.ops.append(operation.reverse())
            upgrade_ops.ops.append(operation)
    for dropped in [op for op in upgrade_ops.ops if isinstance(op, DropTableOp)]:
        table = dropped.to_table()
        declared, expected = tenant_table(table, config), expected_isolation(table, config)
        found = actual[table.schema].get(table.name)
        if declared is None or expected is None or found is None:
            continue
        if _walled(found, as_printed(expected, _quoted(connection, declared.column), config)):
            exposure = _operation(table, declared, config).reverse()
            upgrade_ops.ops.insert(upgrade_ops.ops.index(dropped), exposure)


@comparators.dispatch_for(
    "column",
    qualifier="postgresql",
    subgroup="server_default",
    priority=DispatchPriority.FIRST,
)
def compare_tenant_default(
    context: AutogenContext,
    alter_column: AlterColumnOp,
    _schema: str | None,
    _table_name: str,
    _column_name: str,
    found: Column[Any],
    wanted: Column[Any],
) -> PriorityDispatchResult:
    """Compare the default that fills a tenant column, as text.

    Alembic evaluates two defaults to compare them, which says nothing of this one: it is NULL
    while no tenant is bound.
    """
    expression = _bare(current_tenant(_tenancy(context)))
    if _bare(_default(wanted)) != expression:
        return PriorityDispatchResult.CONTINUE
    alter_column.existing_server_default = found.server_default
    if _bare(_default(found)) != expression:
        alter_column.modify_server_default = wanted.server_default
    return PriorityDispatchResult.STOP


@renderers.dispatch_for(IsolateTableOp)
def render_isolate_table(_context: AutogenContext, operation: IsolateTableOp) -> str:
    """Render the operation into a revision file."""
    return _rendered("isolate_table", operation)


@renderers.dispatch_for(ExposeTableOp)
def render_expose_table(_context: AutogenContext, operation: ExposeTableOp) -> str:
    """Render the operation into a revision file."""
    return _rendered("expose_table", operation)


def _compared(context: AutogenContext, table: Table, schemas: set[str | None]) -> bool:
    parents: Any = {"schema_name": table.schema}
    return (
        table.schema in schemas
        and context.run_name_filters(table.name, "table", parents)
        and context.run_object_filters(table, table.name, "table", False, None)
    )


def _walled(found: TableIsolation, wanted: TableIsolation) -> bool:
    return found.enabled and found.forced and set(wanted.policies) <= set(found.policies)


def _operation(table: Table, declared: TenantTable, config: TenancyConfig) -> IsolateTableOp:
    column = None if declared.column == config.tenant_column else declared.column
    return IsolateTableOp(
        table.name, column=column, reader_role=declared.reader_role, schema=table.schema
    )


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


def _default(column: Column[Any]) -> str | None:
    default = column.server_default
    return str(default.arg) if isinstance(default, DefaultClause) else None


def _bare(default: str | None) -> str | None:
    """Return the expression without what PostgreSQL adds when it prints one."""
    return None if default is None else re.sub(r"::text\b|[()\s]", "", default).lower()

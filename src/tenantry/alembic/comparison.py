"""Autogenerate: a wall or a tenant default that is missing or differs is drift."""

import logging
import re
from collections.abc import Callable
from typing import Any, Literal

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AlterColumnOp, CreateTableOp, DropTableOp, UpgradeOps
from alembic.util import DispatchPriority, PriorityDispatchResult
from sqlalchemy import Column, DefaultClause, String, Table, TypeDecorator, func, inspect, select
from sqlalchemy.engine import Connection

from tenantry.alembic.operations import ExposeTableOp, IsolateTableOp
from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.exceptions import ConfigurationError
from tenantry.models import INFO_KEY, TenantTable, current_tenant, tenant_table
from tenantry.rls import TableIsolation, as_printed, expected_isolation, read_isolation

logger = logging.getLogger("tenantry.alembic")


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare_isolation(
    context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]
) -> None:
    """Add an operation for each tenant table of the models that the database does not wall off.

    What is left of an older wall is taken down first, in the same revision, and so is the wall of
    a table that is dropped: a downgrade then builds it up again. Further policies are left alone:
    the wall contains them.

    Raises:
        ConfigurationError: a table gets its tenant from settings that the configuration does not
            name.
    """
    connection = context.connection
    if connection is None or context.metadata is None:
        return
    context.opts["render_item"] = _rendering(context.opts.get("render_item"))
    config = _tenancy(context)
    actual = {schema: read_isolation(connection, schema) for schema in schemas}
    created = {
        (op.schema, op.table_name) for op in upgrade_ops.ops if isinstance(op, CreateTableOp)
    }
    for table in context.sorted_tables:
        _check_default(table, config)
        declared = tenant_table(table, config)
        expected = expected_isolation(table, config)
        if declared is None or expected is None:
            continue
        is_new = (table.schema, table.name) in created
        if not is_new and not _compared(context, table, schemas):
            continue
        found = actual.get(table.schema, {}).get(table.name)
        wanted = as_printed(expected, _quoted(connection, declared.column), config)
        if found is None or not _walled(found, wanted):
            operation = _operation(table, declared, config)
            if found is not None and (found.enabled or found.forced or found.policies):
                upgrade_ops.ops.append(operation.reverse())
            upgrade_ops.ops.append(operation)
    _warn_of_schemas(context, {schema for schema, _ in created} - schemas)
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


def _check_default(table: Table, config: TenancyConfig) -> None:
    """Refuse a table that takes its tenant from the default settings where others are configured.

    Such as one of TenantMixin's: it would have no wall, or accept no row.
    """
    usual = _bare(current_tenant(DEFAULT_CONFIG))
    filled = [column.name for column in table.c if _bare(_default(column)) == usual]
    if not filled or table.info.get(INFO_KEY, config) is None:
        return
    if usual == _bare(current_tenant(config)) and tenant_table(table, config) is not None:
        return
    raise ConfigurationError(
        f"table {table.fullname!r}: column {filled[0]!r} is filled with "
        f"{current_tenant(DEFAULT_CONFIG)}, but the configured tenancy has the column "
        f"{config.tenant_column!r} and {current_tenant(config)}. TenantMixin and TaskRecordMixin "
        "are of the default TenancyConfig: with another one, write the columns yourself"
    )


def _warn_of_schemas(context: AutogenContext, schemas: set[str | None]) -> None:
    """Say what to do about schemas of new tables in which Alembic did not look."""
    present = set(inspect(context.connection).get_schema_names()) if schemas else set()
    for schema in sorted(schema for schema in schemas if schema is not None):
        if schema in present:
            logger.warning(
                "schema %r was not compared, so all its tables count as new: pass "
                "include_schemas=True to context.configure",
                schema,
            )
        else:
            logger.warning(
                "schema %r is not in the database: a revision before this one has to create it, "
                "then op.create_tenancy_roles(schemas=[%r])",
                schema,
                schema,
            )


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


def _rendering(
    given: Callable[..., str | Literal[False]] | None,
) -> Callable[..., str | Literal[False]]:
    """Return a `render_item` that writes a column type of the library as the type beneath it.

    A revision then imports nothing of the library, and runs when it has changed.
    """

    def render(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
        rendered = given(kind, item, context) if given is not None else False
        if rendered is not False or kind != "type" or not isinstance(item, TypeDecorator):
            return rendered
        if not type(item).__module__.startswith("tenantry."):
            return False
        return f"{context.opts['sqlalchemy_module_prefix']}{item.impl!r}"

    return render


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

"""Searches inside a tenant: their operations, and their place in autogenerate."""

from typing import Any, Final

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import UpgradeOps
from alembic.util import DispatchPriority
from sqlalchemy import MetaData, text

from tenantry.alembic.operations import migration_tenancy
from tenantry.alembic.search_statements import create_search, drop_search
from tenantry.rls import Match, Search
from tenantry.search import declared_searches

# A search's function is known by its comment, which tells the definition.
_SEARCHES: Final = text("""
select p.proname, pg_catalog.obj_description(p.oid, 'pg_proc') as description
from pg_catalog.pg_proc as p
join pg_catalog.pg_namespace as n on n.oid = p.pronamespace
where n.nspname = coalesce(cast(:schema as text), current_schema())
  and pg_catalog.starts_with(pg_catalog.obj_description(p.oid, 'pg_proc'), 'tenantry search: ')
order by p.proname
""")


@Operations.register_operation("create_tenant_search")
class CreateTenantSearchOp(MigrateOperation):
    """Creates a function that searches one column of the bound tenant's rows, by its index."""

    def __init__(self, search: Search) -> None:
        """Take the search."""
        self.search = search

    @classmethod
    def create_tenant_search(
        cls,
        operations: Operations,
        name: str,
        table_name: str,
        column: str,
        *,
        match: Match,
        type: str,  # noqa: A002 - the word that SQL and Alembic have for it
        detail: str | None = None,
        schema: str | None = None,
        tenant_column: str | None = None,
        rows: int = 100,
        keep_plan: bool = False,
    ) -> Any:
        """Create a function that returns those rows of the bound tenant that a search finds.

        The function belongs to a role of its own, `<name>_searcher`, which cannot log in, may
        SELECT from this table alone and stands behind the wall like everybody else; only the
        application's role may call it. `isolate_table` has walled the table off before.

        Args:
            operations: supplied by Alembic.
            name: of the function, which is made in the table's schema.
            table_name: whose rows it returns.
            column: which is searched.
            match: `equals`, `between`, `equals_ignoring_case`, `contains_text`, `contains`,
                `key_equals` or `words`; docs/search.md says what each of them means.
            type: of the column, without modifiers; an enum or citext with its schema.
            detail: the key of `key_equals`, the text search configuration of `words`.
            schema: of the table.
            tenant_column: of the table, if it is not the configured one.
            rows: how many rows the planner shall expect.
            keep_plan: let the server keep the plan of an earlier call, which saves planning each
                one; docs/search.md says where that is safe.

        Raises:
            UnsearchableError: the match is not for columns of this type, or not needed for them.
        """
        search = Search(
            name=name,
            table=table_name,
            column=column,
            match=match,
            type=type,
            detail=detail,
            schema=schema,
            tenant_column=tenant_column or migration_tenancy(operations).tenant_column,
            rows=rows,
            keep_plan=keep_plan,
        )
        return operations.invoke(cls(search))

    def to_diff_tuple(self) -> tuple[str | None, ...]:
        """Return what `alembic check` prints."""
        return ("create_tenant_search", self.search.schema, self.search.name)

    def reverse(self) -> "DropTenantSearchOp":
        """Return the operation that undoes this one."""
        search = self.search
        return DropTenantSearchOp(search.name, search.table, schema=search.schema, search=search)


@Operations.register_operation("drop_tenant_search")
class DropTenantSearchOp(MigrateOperation):
    """Drops a search: the function, its policy and its role's rights; the role stays."""

    def __init__(
        self,
        name: str,
        table_name: str,
        *,
        schema: str | None = None,
        search: Search | None = None,
    ) -> None:
        """Take the names, and the search where it is known and can be made again."""
        self.name = name
        self.table_name = table_name
        self.schema = schema
        self.search = search

    @classmethod
    def drop_tenant_search(
        cls, operations: Operations, name: str, table_name: str, *, schema: str | None = None
    ) -> Any:
        """Drop what `create_tenant_search` made; its role, which belongs to the server, stays."""
        return operations.invoke(cls(name, table_name, schema=schema))

    def to_diff_tuple(self) -> tuple[str | None, ...]:
        """Return what `alembic check` prints."""
        return ("drop_tenant_search", self.schema, self.name)

    def reverse(self) -> CreateTenantSearchOp:
        """Return the operation that undoes this one."""
        if self.search is None:
            raise NotImplementedError(f"what search {self.name!r} looked for is not known")
        return CreateTenantSearchOp(self.search)


@Operations.implementation_for(CreateTenantSearchOp)
def _create_tenant_search(operations: Operations, operation: CreateTenantSearchOp) -> None:
    for statement in create_search(operation.search, migration_tenancy(operations)):
        operations.execute(statement)


@Operations.implementation_for(DropTenantSearchOp)
def _drop_tenant_search(operations: Operations, operation: DropTenantSearchOp) -> None:
    for statement in drop_search(
        operation.name, operation.table_name, operation.schema, migration_tenancy(operations)
    ):
        operations.execute(statement)


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)
def compare_searches(
    context: AutogenContext, upgrade_ops: UpgradeOps, schemas: set[str | None]
) -> None:
    """Add an operation for each search that the models declare otherwise than the database has it.

    What goes, goes first, since a table that is searched cannot be dropped; what comes, comes last.
    """
    connection, metadata = context.connection, context.metadata
    if connection is None or not isinstance(metadata, MetaData):
        return
    declared = {
        (search.schema, search.name): search
        for search in declared_searches(metadata)
        if search.schema in schemas
    }
    found = {
        (schema, name): Search.described(description, name=name, schema=schema)
        for schema in schemas
        for name, description in connection.execute(_SEARCHES, {"schema": schema})
    }
    goes = [search for key, search in found.items() if declared.get(key) != search]
    upgrade_ops.ops[:0] = [CreateTenantSearchOp(search).reverse() for search in goes]
    comes = [search for key, search in declared.items() if found.get(key) != search]
    upgrade_ops.ops.extend(map(CreateTenantSearchOp, comes))


@renderers.dispatch_for(CreateTenantSearchOp)
def render_create_tenant_search(_context: AutogenContext, operation: CreateTenantSearchOp) -> str:
    """Render the operation into a revision file."""
    search = operation.search
    arguments = [repr(value) for value in (search.name, search.table, search.column)]
    arguments += [
        f"{key}={value!r}"
        for key, value in (
            ("match", search.match),
            ("type", search.type),
            ("detail", search.detail),
            ("schema", search.schema),
            ("tenant_column", search.tenant_column),
            ("rows", search.rows),
            ("keep_plan", search.keep_plan or None),
        )
        if value is not None
    ]
    return f"op.create_tenant_search({', '.join(arguments)})"


@renderers.dispatch_for(DropTenantSearchOp)
def render_drop_tenant_search(_context: AutogenContext, operation: DropTenantSearchOp) -> str:
    """Render the operation into a revision file."""
    schema = "" if operation.schema is None else f", schema={operation.schema!r}"
    return f"op.drop_tenant_search({operation.name!r}, {operation.table_name!r}{schema})"

"""Explicit filters: the wall where the database is none.

The filter is rendered by the SQL compiler, wherever a statement names a tenant table: a table in
any FROM becomes `(SELECT * FROM t WHERE organization_id = :tenant) AS t`, an UPDATE or DELETE gets
the same condition, an INSERT the tenant's id. So joins of every kind, sub-queries, CTEs,
relationship loads and the unit of work are filtered alike, and no query can forget it. PostgreSQL
pulls such sub-queries up: the plan is the one of a WHERE clause.

What the compiler cannot see into (text, hints, views, functions that run SQL) it notes, and the
engine refuses the statement where filters are the only wall.
"""

import re
from collections.abc import Iterable
from contextvars import ContextVar
from typing import Any, Final

from sqlalchemy import (
    Alias,
    BindParameter,
    Column,
    Delete,
    Insert,
    Table,
    Update,
    bindparam,
)
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.elements import Grouping
from sqlalchemy.types import TypeEngine

from tenantry.config import TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import MissingTenantError
from tenantry.models import INFO_KEY, extends_tenant_table, named_column, tenant_table

# Set by the engine from the connection's own tenant when a statement's execution begins, read while
# its parameters are collected, and set back before it is sent: it never outlives a statement.
statement_tenant: ContextVar[Tenant | None] = ContextVar("statement_tenant", default=None)

BIND_NAME: Final = "tenantry_organization"

_PLAIN_LITERAL: Final = re.compile(r"\*|\d+|[A-Za-z_][\w.]*|'[^'\\]*'")
_PLAIN_OPERATOR: Final = re.compile(
    r"(?!.*(--|/\*|\*/))[-+*/<>=~!@#%^&|?`]+|(not )?(like|ilike|similar to|overlaps)"
    r"|is (not )?distinct from|at time zone",
    re.IGNORECASE,
)
# They run SQL, or open a relation or a file, that they are given by name.
_REACHING_FUNCTION: Final = re.compile(
    r"(query|table|schema|database|cursor)_to_xml.*|ts_stat|ts_rewrite|dblink.*|crosstab.*"
    r"|connectby|pg_read_.*|pg_ls_.*|pg_stat_file|lo_.*|loread|pg_stat_get_activity"
    r"|pg_stat_get_backend_activity|pg_logical_.*|currtid.*|set_config",
    re.IGNORECASE,
)
# Views of the server that show rows, statements or statistics of other tenants.
_REVEALING_VIEW: Final = re.compile(
    r"pg_stats.*|pg_statistic.*|pg_stat_activity|pg_prepared_.*|pg_largeobject.*|pg_cursors"
)
_SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})


class Filtering:
    """Whether an engine renders filters, and what the catalog knows of tables.

    Attributes:
        config: what the database calls its tenants.
        active: filters are rendered.
        tenant_tables: schema, name and tenant column of each tenant table that the probe saw.
        shared_tables: schema and name of each other table that it saw; views are not among them.
    """

    def __init__(self, config: TenancyConfig, *, active: bool) -> None:
        """Start with filters rendered (`active`) or not, and nothing known."""
        self.config = config
        self.active = active
        self.tenant_tables: frozenset[tuple[str, str, str]] = frozenset()
        self.shared_tables: frozenset[tuple[str, str]] = frozenset()

    def learn(
        self,
        tenant_tables: Iterable[tuple[str, str, str]],
        shared_tables: Iterable[tuple[str, str]],
    ) -> None:
        """Add what a probe saw to what is known."""
        self.tenant_tables |= frozenset(tenant_tables)
        self.shared_tables |= frozenset(shared_tables)

    def is_seen(self, column: Column[Any]) -> bool:
        """Whether the probe looked at this column's table, and by this tenant column."""
        table: Any = column.table
        return any(
            (name, tenant_column) == (table.name, column.name)
            and (table.schema is None or table.schema == schema)
            for schema, name, tenant_column in self.tenant_tables
        )

    def is_shared(self, table: Table) -> bool:
        """Whether the catalog has this name for plain tables without a tenant column alone."""
        if table.schema in _SYSTEM_SCHEMAS:
            return not _REVEALING_VIEW.fullmatch(table.name)
        names = {(schema, name) for schema, name, _ in self.tenant_tables}
        found = {
            (schema, name)
            for schema, name in names | self.shared_tables
            if name == table.name and (table.schema is None or table.schema == schema)
        }
        return bool(found) and not found & names


class FilteringCompiler(SQLCompiler):
    """A statement compiler that confines every tenant table to the statement's tenant.

    Attributes:
        filtering: the engine's.
        tenant_filtered: filters were rendered into this statement.
        tenant_refusal: what in it no filter reaches; None if there is nothing.
        tenant_unseen: tenant tables of the models that the probe had not looked at.
        tenant_values: the parameters that the statement gives to a tenant column.
    """

    filtering: Filtering
    tenant_filtered: bool = False
    tenant_refusal: str | None = None
    tenant_unseen: tuple[Column[Any], ...] = ()
    tenant_values: tuple[BindParameter[Any] | str, ...] = ()

    _target: object = None
    _rendered_names: dict[str, Table]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Compile the statement, noting whether filters were rendered."""
        self.tenant_filtered = self.filtering.active
        self._rendered_names = {}
        super().__init__(*args, **kwargs)
        if self.tenant_filtered and self.statement is not None:
            for element in visitors.iterate(self.statement):
                if hasattr(type(element), "_compiler_dispatcher"):
                    self._refuse(f"{type(element).__name__}, which has a compiler of its own,")

    def visit_table(self, table: Any, asfrom: bool = False, **kwargs: Any) -> str:
        """Render a tenant table in a FROM as the sub-query of its tenant's rows."""
        column = self._tenant_column(table) if asfrom else None
        target = kwargs.get("iscrud") or table is self._target
        if column is None or target or not self.tenant_filtered:
            return super().visit_table(table, asfrom=asfrom, **kwargs)
        ambiguous_names = kwargs.pop("ambiguous_table_name_map", None)
        rendered = super().visit_table(table, asfrom=asfrom, **kwargs)
        bind = self.process(_tenant_bind(column.type), **kwargs)
        condition = f"{self.preparer.quote(column.name)} = {bind}"
        query = f"(SELECT * FROM {rendered} WHERE {condition})"  # noqa: S608 - quoted names, a bind
        enclosing = kwargs.get("enclosing_alias")
        if enclosing is not None and enclosing.element is table:
            return query
        name = table.name
        if ambiguous_names and name in ambiguous_names and not table.schema:
            name = self._truncated_identifier("alias", ambiguous_names[name])
        if self._rendered_names.setdefault(name, table) is not table:
            self._refuse(f"two tables of different schemas, both called {name!r},")
        return f"{query} AS {self.preparer.quote(name)}"

    def visit_alias(self, alias: Any, *args: Any, **kwargs: Any) -> str:
        """Render the target of an UPDATE or DELETE as it is, under its alias too."""
        if not kwargs.get("iscrud"):
            return super().visit_alias(alias, *args, **kwargs)
        self._target = alias.element
        try:
            return super().visit_alias(alias, *args, **kwargs)
        finally:
            self._target = None

    def visit_tablesample(self, tablesample: Any, *args: Any, **kwargs: Any) -> str:
        """Note a sample, which cannot be taken of a sub-query."""
        self._refuse("a sample of a table")
        return super().visit_tablesample(tablesample, *args, **kwargs)

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        """Refer to a schema's tenant table by its name alone, as the sub-query is called."""
        if self.tenant_filtered:
            if column.is_literal and not _PLAIN_LITERAL.fullmatch(column.name):
                self._refuse("a literal column")
            table = column.table
            if (
                isinstance(table, Table)
                and kwargs.get("include_table", True)
                and self.preparer.schema_for_object(table)
                and self._tenant_column(table) is not None
            ):
                kwargs["include_table"] = False
                rendered = super().visit_column(column, *args, **kwargs)
                return f"{self.preparer.quote(table.name)}.{rendered}"
        return super().visit_column(column, *args, **kwargs)

    def visit_update(self, update_stmt: Update, *args: Any, **kwargs: Any) -> str:
        """Confine an UPDATE to the tenant's rows, and note a change of tenant for the gate."""
        column = self._tenant_column(update_stmt.table)
        if column is not None and self.tenant_filtered:
            self._note_value(update_stmt, column)
            update_stmt = _confined(update_stmt, column)
        return super().visit_update(update_stmt, *args, **kwargs)

    def visit_delete(self, delete_stmt: Delete, *args: Any, **kwargs: Any) -> str:
        """Confine a DELETE to the tenant's rows."""
        column = self._tenant_column(delete_stmt.table)
        if column is not None and self.tenant_filtered:
            delete_stmt = _confined(delete_stmt, column)
        return super().visit_delete(delete_stmt, *args, **kwargs)

    def visit_insert(self, insert_stmt: Insert, *args: Any, **kwargs: Any) -> str:
        """Stamp the tenant on an INSERT that names none, and note one that does for the gate."""
        column = self._tenant_column(insert_stmt.table)
        if column is not None and self.tenant_filtered:
            conflict = insert_stmt._post_values_clause
            if insert_stmt.select is not None or insert_stmt._multi_values:
                self._refuse("an INSERT whose rows are not parameters")
            elif conflict is not None and conflict.__visit_name__ != "on_conflict_do_nothing":
                self._refuse("an INSERT that updates the row it conflicts with")
            elif not self._note_value(insert_stmt, column):
                insert_stmt = insert_stmt.values({column: _tenant_bind(column.type)})
        return super().visit_insert(insert_stmt, *args, **kwargs)

    def visit_textclause(self, *args: Any, **kwargs: Any) -> str:
        """Note raw SQL, which cannot be filtered."""
        self._refuse("raw SQL text")
        return super().visit_textclause(*args, **kwargs)

    def visit_tstring(self, *args: Any, **kwargs: Any) -> str:
        """Note raw SQL, which cannot be filtered."""
        self._refuse("raw SQL text")
        rendered: str = super().visit_tstring(*args, **kwargs)
        return rendered

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """Note a function that runs SQL of its own or opens a relation by its name."""
        packages = [name for name in getattr(func, "packagenames", ()) if name != "pg_catalog"]
        if packages or _REACHING_FUNCTION.fullmatch(func.name):
            self._refuse(f"function {'.'.join([*packages, func.name])!r}")
        return super().visit_function(func, *args, **kwargs)

    def visit_extract(self, extract: Any, **kwargs: Any) -> str:
        """Note a field that is more than a name."""
        if not str(extract.field).isidentifier():
            self._refuse("an EXTRACT field")
        return super().visit_extract(extract, **kwargs)

    def visit_cast(self, cast: Any, **kwargs: Any) -> str:
        """Note an interval whose fields are more than names."""
        fields = getattr(cast.typeclause.type, "fields", None) or ""
        if not re.fullmatch(r"[A-Za-z ]*(\(\d\))?", str(fields)):
            self._refuse("the fields of an interval")
        return super().visit_cast(cast, **kwargs)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose text could hold more than an operator."""
        self._check_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kwargs)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose text could hold more than an operator."""
        self._check_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kwargs)

    def visit_custom_op_unary_modifier(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose text could hold more than an operator."""
        self._check_operator(operator)
        return super().visit_custom_op_unary_modifier(element, operator, **kwargs)

    def get_statement_hint_text(self, hint_texts: Any) -> str:
        """Note a hint, which is raw SQL on PostgreSQL."""
        self._refuse("a statement hint")
        return super().get_statement_hint_text(hint_texts)

    def format_from_hint_text(self, *args: Any) -> str:
        """Note a hint, which is raw SQL on PostgreSQL."""
        self._refuse("a table hint")
        return super().format_from_hint_text(*args)

    def _check_operator(self, operator: Any) -> None:
        if not _PLAIN_OPERATOR.fullmatch(operator.opstring.strip()):
            self._refuse("a custom operator")

    def _tenant_column(self, table: Any) -> Column[Any] | None:
        """Return the tenant column of a table or its alias; note a table nobody can vouch for."""
        element: Any = table.element if isinstance(table, Alias) else table
        if not isinstance(element, Table):
            if getattr(element, "__visit_name__", None) == "table":
                self._refuse(f"table {element.name!r}, of which only the name is known,")
            return None
        config = self.filtering.config
        declared = tenant_table(element, config)
        if declared is None:
            if not self.tenant_filtered:
                return None
            if extends_tenant_table(element, config):
                self._refuse(f"{element.fullname!r}, part of a tenant table without its column,")
            elif INFO_KEY not in element.info and not self.filtering.is_shared(element):
                self._refuse(f"{element.fullname!r}, not known as a table that tenants share,")
            return None
        column = named_column(element, declared.column)
        if not self.filtering.is_seen(column):
            self.tenant_unseen = (*self.tenant_unseen, column)
        return named_column(table, declared.column)

    def _note_value(self, statement: Insert | Update, column: Column[Any]) -> bool:
        """Note that the statement gives the tenant column a value; return whether it does."""
        assigned = dict(statement._values or {})
        assigned.update(getattr(statement, "_ordered_values", None) or ())
        values = [v for k, v in assigned.items() if getattr(k, "key", k) == column.key]
        for value in values:
            if isinstance(value, BindParameter):
                self.tenant_values = (*self.tenant_values, value)
            else:
                self._refuse("an expression for the tenant column")
        if not values and column.key in (self.column_keys or ()):
            self.tenant_values = (*self.tenant_values, column.key)
            return True
        return bool(values)

    def _refuse(self, what: str) -> None:
        if self.tenant_refusal is None:
            self.tenant_refusal = what


def _confined(statement: Any, column: Column[Any]) -> Any:
    """Return the UPDATE or DELETE with the tenant's condition, apart from the caller's own."""
    confined = statement.where(column == _tenant_bind(column.type))
    *criteria, condition = confined._where_criteria
    # In parentheses, so that an operator's declared precedence cannot let an OR out.
    confined._where_criteria = (*(Grouping(criterion) for criterion in criteria), condition)
    return confined


def _tenant_bind(type_: TypeEngine[Any]) -> BindParameter[Any]:
    return bindparam(BIND_NAME, callable_=_organization_id, type_=type_)


def _organization_id() -> Any:
    tenant = statement_tenant.get()
    if tenant is None:
        raise MissingTenantError(
            "a statement on a tenant table was executed without a tenant: call set_tenant(session, "
            "organization_id) first, or use tenant_scope()"
        )
    return tenant.organization_id

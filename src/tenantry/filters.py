"""Explicit filters: the wall where the database is none.

The filter is rendered by the SQL compiler, wherever a statement names a tenant table: a table in
any FROM becomes `(SELECT * FROM t WHERE organization_id = :tenant) AS t`, an UPDATE or DELETE gets
the same condition, an INSERT the tenant's id. So joins of every kind, sub-queries, CTEs,
relationship loads and the unit of work are filtered alike, and no query can forget it. PostgreSQL
pulls such sub-queries up: the plan is the one of a WHERE clause.

What the compiler cannot see into (text, hints, an unknown operator) it notes, and the engine
refuses the statement where filters are the only wall.
"""

import re
from contextvars import ContextVar
from typing import Any, Final

import psycopg2.extensions
from sqlalchemy import BindParameter, Column, Delete, Insert, Table, Update, bindparam
from sqlalchemy.sql.compiler import Compiled, DDLCompiler, SQLCompiler
from sqlalchemy.types import TypeEngine

from tenantry.config import TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import (
    CrossTenantError,
    MissingTenantError,
    UnfilterableStatementError,
)
from tenantry.models import tenant_column

# Set by the engine from the connection's own tenant right before a statement is compiled and its
# parameters are read, in the same call: it never carries a tenant from one statement to the next.
statement_tenant: ContextVar[Tenant | None] = ContextVar("statement_tenant", default=None)

_BIND_NAME: Final = "tenantry_organization"
_PLAIN_LITERAL: Final = re.compile(r"\*|\d+|[A-Za-z_][\w.]*")
_PLAIN_OPERATOR: Final = re.compile(r"[-+*/<>=~!@#%^&|?` \w]+")


class Filtering:
    """Whether an engine renders filters, and by which names; shared by its compilers."""

    def __init__(self, config: TenancyConfig, *, active: bool) -> None:
        """Start with filters rendered (`active`) or not."""
        self.config = config
        self.active = active


class FilteringCompiler(SQLCompiler):
    """A statement compiler that confines every tenant table to the statement's tenant."""

    filtering: Filtering
    tenant_refusal: str | None = None
    tenant_filtered: bool = False
    tenant_value_keys: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Compile the statement, noting whether filters were rendered."""
        self.tenant_filtered = self.filtering.active
        super().__init__(*args, **kwargs)

    def visit_table(self, table: Any, asfrom: bool = False, **kwargs: Any) -> str:
        """Render a tenant table in a FROM as the sub-query of its tenant's rows."""
        if not asfrom or kwargs.get("ashint") or not self.tenant_filtered:
            return super().visit_table(table, asfrom=asfrom, **kwargs)
        column = self._tenant_column(table)
        if column is None or kwargs.get("iscrud"):
            return super().visit_table(table, asfrom=asfrom, **kwargs)
        ambiguous_names = kwargs.pop("ambiguous_table_name_map", None)
        rendered = super().visit_table(table, asfrom=asfrom, **kwargs)
        condition = (
            f"{self.preparer.quote(column.name)} = {self.process(_tenant_bind(column.type))}"
        )
        query = f"(SELECT * FROM {rendered} WHERE {condition})"  # noqa: S608 - quoted names, a bind
        enclosing = kwargs.get("enclosing_alias")
        if enclosing is not None and enclosing.element is table:
            return query
        name = table.name
        if ambiguous_names and name in ambiguous_names and not table.schema:
            name = self._truncated_identifier("alias", ambiguous_names[name])
        return f"{query} AS {self.preparer.quote(name)}"

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        """Refer to a schema's tenant table by its name alone, as the sub-query is called."""
        if self.tenant_filtered:
            if column.is_literal and not _PLAIN_LITERAL.fullmatch(column.name):
                self._refuse("a literal column")
            table = column.table
            if (
                isinstance(table, Table)
                and table.schema
                and kwargs.get("include_table", True)
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
            update_stmt = update_stmt.where(column == _tenant_bind(column.type))
            self._note_value(update_stmt, column)
        return super().visit_update(update_stmt, *args, **kwargs)

    def visit_delete(self, delete_stmt: Delete, *args: Any, **kwargs: Any) -> str:
        """Confine a DELETE to the tenant's rows."""
        column = self._tenant_column(delete_stmt.table)
        if column is not None and self.tenant_filtered:
            delete_stmt = delete_stmt.where(column == _tenant_bind(column.type))
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
        if not _PLAIN_OPERATOR.fullmatch(operator.opstring):
            self._refuse("a custom operator")

    def _tenant_column(self, table: Any) -> Column[Any] | None:
        if not isinstance(table, Table):
            if getattr(table, "__visit_name__", None) == "table":
                self._refuse(f"table {table.name!r}, of which only the name is known,")
            return None
        return tenant_column(table, self.filtering.config)

    def _note_value(self, statement: Insert | Update, column: Column[Any]) -> bool:
        """Note that the statement gives the tenant column a value; return whether it does."""
        assigned = dict(statement._values or {})
        assigned.update(getattr(statement, "_ordered_values", None) or ())
        in_values = {getattr(key, "key", key) for key in assigned}
        if column.key not in in_values and column.key not in (self.column_keys or ()):
            return False
        value = next((v for k, v in assigned.items() if getattr(k, "key", k) == column.key), None)
        if value is not None and not isinstance(value, BindParameter):
            self._refuse("an expression for the tenant column")
        self.tenant_value_keys = (*self.tenant_value_keys, column.key)
        return True

    def _refuse(self, what: str) -> None:
        if self.tenant_refusal is None and self.tenant_filtered:
            self.tenant_refusal = what


def check_statement(compiled: Compiled | None, rows: list[dict[str, Any]] | None) -> None:
    """Pass a statement that is proven to stay inside the statement's tenant.

    Args:
        compiled: the compiled statement; None for a string given to the driver.
        rows: its parameters, one dict for each row.

    Raises:
        UnfilterableStatementError: it holds something that filters do not reach.
        CrossTenantError: it writes the id of another organization.
        MissingTenantError: it writes to a tenant table and no tenant is bound.
    """
    if isinstance(compiled, DDLCompiler):
        return
    refusal: str | None
    if compiled is None:
        refusal = "raw SQL text"
    elif not isinstance(compiled, FilteringCompiler) or not compiled.tenant_filtered:
        refusal = "a statement compiled before the wall was found missing (restart the process)"
    else:
        refusal = compiled.tenant_refusal
    if refusal is not None:
        raise UnfilterableStatementError(
            f"{refusal} cannot be filtered, and explicit filters are the only wall between "
            "tenants here: write it with mapped classes and Core constructs, or put the database's "
            "own wall in place (`tenantry status` says what is missing)"
        )
    if not isinstance(compiled, FilteringCompiler) or not compiled.tenant_value_keys:
        return
    organization_id = _organization_id()
    for row in rows or ({},):
        for key in compiled.tenant_value_keys:
            if str(row.get(key)) != str(organization_id):
                raise CrossTenantError(
                    f"a row of organization {row.get(key)} was to be written for organization "
                    f"{organization_id}: leave {key!r} out, it is filled in"
                )


class GuardedCursor(psycopg2.extensions.cursor):
    """A cursor that runs only what the engine has checked; used where filters are the only wall.

    It keeps statements of a raw connection from going round the filters.
    """

    checked = False

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        """Execute a checked statement, or the pool's own `SELECT 1`."""
        if not self.checked and str(query).strip().lower() != "select 1":
            self._refuse("execute")
        super().execute(query, vars)

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Execute a checked statement for several rows."""
        if not self.checked:
            self._refuse("executemany")
        super().executemany(query, vars_list)

    def callproc(self, *_args: Any) -> Any:
        """Refuse: the engine never calls this."""
        self._refuse("callproc")

    def copy_expert(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: COPY cannot be filtered."""
        self._refuse("copy_expert")

    def copy_from(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: COPY cannot be filtered."""
        self._refuse("copy_from")

    def copy_to(self, *_args: Any, **_kwargs: Any) -> Any:
        """Refuse: COPY cannot be filtered."""
        self._refuse("copy_to")

    def _refuse(self, method: str) -> None:
        raise UnfilterableStatementError(
            f"{method}() on a raw cursor cannot be filtered, and explicit filters are the only "
            "wall between tenants here: use the Session or the Connection"
        )


def _tenant_bind(type_: TypeEngine[Any]) -> BindParameter[Any]:
    return bindparam(_BIND_NAME, callable_=_organization_id, type_=type_)


def _organization_id() -> Any:
    tenant = statement_tenant.get()
    if tenant is None:
        raise MissingTenantError(
            "a statement on a tenant table was executed without a tenant: call set_tenant(session, "
            "organization_id) first, or use tenant_scope()"
        )
    return tenant.organization_id

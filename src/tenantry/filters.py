"""Explicit filters: the wall where the database is none.

The filter is rendered by the SQL compiler, wherever a statement names a tenant table: a table in
any FROM becomes `(SELECT * FROM t WHERE organization_id = :tenant) AS t`, an UPDATE or DELETE gets
the same condition, an INSERT the tenant's id. So joins of every kind, sub-queries, CTEs,
relationship loads and the unit of work are filtered alike, and no query can forget it. PostgreSQL
pulls such sub-queries up: the plan is the one of a WHERE clause.

What the filters do not reach is noted, text (`refusals`) as well as tables that nobody vouches for,
and the engine refuses the statement where filters are the only wall.
"""

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
from sqlalchemy.sql.elements import Grouping, _truncated_label
from sqlalchemy.types import TypeEngine
from sqlalchemy.util import immutabledict

from tenantry import phrases
from tenantry.config import TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import MissingTenantError
from tenantry.models import INFO_KEY, extends_tenant_table, named_column, tenant_table
from tenantry.refusals import RefusingCompiler

# Set by the engine from the connection's own tenant when a statement's execution begins, read while
# its parameters are collected, and set back before it is sent: it never outlives a statement.
statement_tenant: ContextVar[Tenant | None] = ContextVar("statement_tenant", default=None)

BIND_NAME: Final = "tenantry_organization"

_SYSTEM_SCHEMAS: Final = frozenset({"pg_catalog", "information_schema"})


class Filtering:
    """Whether an engine renders filters, and what the catalog knows of tables.

    Attributes:
        config: what the database calls its tenants.
        active: filters are rendered.
        tenant_tables: schema, name and tenant column of each tenant table that the probe saw.
        shared_tables: schema and name of each other table that it saw; views are not among them.
        own_code: names of the functions and operators of the application's own that it saw.
    """

    def __init__(self, config: TenancyConfig) -> None:
        """Start with nothing rendered, and nothing known."""
        self.config = config
        self.active = False
        self.tenant_tables: frozenset[tuple[str, str, str]] = frozenset()
        self.shared_tables: frozenset[tuple[str, str]] = frozenset()
        self.own_code: frozenset[str] = frozenset()

    def learn(
        self,
        tenant_tables: Iterable[tuple[str, str, str]],
        shared_tables: Iterable[tuple[str, str]],
        own_code: Iterable[str],
    ) -> None:
        """Add what a probe saw to what is known."""
        self.tenant_tables |= frozenset(tenant_tables)
        self.shared_tables |= frozenset(shared_tables)
        self.own_code |= frozenset(own_code)

    def is_seen(self, column: Column[Any]) -> bool:
        """Whether the probe looked at this column's table, and by this tenant column."""
        table: Any = column.table
        return any(
            (name, tenant_column) == (table.name, column.name)
            and (table.schema is None or table.schema == schema)
            for schema, name, tenant_column in self.tenant_tables
        )

    def is_shared(self, table: Table, *, translated: bool = False) -> bool:
        """Whether the catalog has this name for plain tables without a tenant column alone.

        In every schema, if the table's own is to be translated to another when it is executed.
        """
        if table.schema in _SYSTEM_SCHEMAS and not translated:
            return not phrases.view_reveals_tenants(table.name)
        schema = None if translated else table.schema
        return not self.is_tenants(table.name, schema) and any(
            name == table.name and schema in {None, its_schema}
            for its_schema, name in self.shared_tables
        )

    def is_tenants(self, table_name: str, schema: str | None) -> bool:
        """Whether the catalog has this name for a tenant table."""
        return any(
            name == table_name and schema in {None, its_schema}
            for its_schema, name, _ in self.tenant_tables
        )


class FilteringCompiler(RefusingCompiler):
    """A statement compiler that confines every tenant table to the statement's tenant.

    Attributes:
        filtering: the engine's.
        tenant_unseen: tenant tables of the models that the probe had not looked at.
        tenant_values: the parameters that the statement gives to a tenant column.
    """

    filtering: Filtering
    tenant_unseen: tuple[Column[Any], ...] = ()
    tenant_values: tuple[BindParameter[Any] | str, ...] = ()

    _target: object = None
    _names: dict[str, object]
    _taken_names: set[str]
    _bare_names: set[str]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Compile the statement, noting whether filters were rendered."""
        self.tenant_filtered = self.filtering.active
        self._names, self._taken_names, self._bare_names = {}, set(), set()
        super().__init__(*args, **kwargs)
        if self._bare_names & self._taken_names:
            self._refuse("a tenant table of one schema, and something else of the same name,")

    def visit_table(self, table: Any, asfrom: bool = False, **kwargs: Any) -> str:
        """Render a tenant table in a FROM as the sub-query of its tenant's rows."""
        column = self._tenant_column(table) if asfrom else None
        target = kwargs.get("iscrud") or table is self._target
        enclosing = kwargs.get("enclosing_alias")
        aliased = enclosing is not None and enclosing.element is table
        if asfrom and not aliased:
            self._note_name(table.name, table, bare=column is not None and bool(table.schema))
        if column is None or target or not self.tenant_filtered:
            return super().visit_table(table, asfrom=asfrom, **kwargs)
        ambiguous_names = kwargs.pop("ambiguous_table_name_map", None)
        rendered = super().visit_table(table, asfrom=asfrom, **kwargs)
        bind = self.process(_tenant_bind(column.type), **kwargs)
        condition = f"{self.preparer.quote(column.name)} = {bind}"
        query = f"(SELECT * FROM {rendered} WHERE {condition})"  # noqa: S608 - quoted names, a bind
        if aliased:
            return query
        name = table.name
        if ambiguous_names and name in ambiguous_names and not table.schema:
            name = self._truncated_identifier("alias", ambiguous_names[name])
        return f"{query} AS {self.preparer.quote(name)}"

    def visit_function(self, func: Any, *args: Any, **kwargs: Any) -> str:
        """Note a function that the application wrote, which may read any table."""
        if {func.name, func.name.lower()} & self.filtering.own_code:
            self._refuse(f"function {func.name!r} of the application's own")
        return super().visit_function(func, *args, **kwargs)

    def visit_custom_op_binary(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose function the application wrote."""
        self._check_own_operator(operator)
        return super().visit_custom_op_binary(element, operator, **kwargs)

    def visit_custom_op_unary_operator(self, element: Any, operator: Any, **kwargs: Any) -> str:
        """Note an operator whose function the application wrote."""
        self._check_own_operator(operator)
        return super().visit_custom_op_unary_operator(element, operator, **kwargs)

    def _check_own_operator(self, operator: Any) -> None:
        if operator.opstring.strip() in self.filtering.own_code:
            self._refuse(f"operator {operator.opstring!r} of the application's own")

    def visit_bindparam(self, bindparam: Any, *args: Any, **kwargs: Any) -> str:
        """Note a tenant that is written into the statement, which others could then execute."""
        if bindparam.key == BIND_NAME and kwargs.get("literal_binds"):
            self._refuse("a statement with its tenant in it")
        return super().visit_bindparam(bindparam, *args, **kwargs)

    def visit_alias(self, alias: Any, *args: Any, **kwargs: Any) -> str:
        """Render the target of an UPDATE or DELETE as it is, under its alias too."""
        self._note_name(alias.name, alias)
        if getattr(alias, "_render_derived_w_types", False):
            for column in alias.c:
                self._check_type(column.type)
        if not kwargs.get("iscrud"):
            return super().visit_alias(alias, *args, **kwargs)
        self._target = alias.element
        try:
            return super().visit_alias(alias, *args, **kwargs)
        finally:
            self._target = None

    def visit_cte(self, cte: Any, *args: Any, **kwargs: Any) -> Any:
        """Note the name, which could be a tenant table's."""
        self._note_name(cte.name, cte)
        return super().visit_cte(cte, *args, **kwargs)

    def visit_column(self, column: Any, *args: Any, **kwargs: Any) -> str:
        """Refer to a schema's tenant table by its name alone, as the sub-query is called."""
        if self.tenant_filtered:
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
            update_stmt, _ = self._follow_value(update_stmt, column)
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
        if not getattr(insert_stmt.table, "implicit_returning", True):
            # Its defaults are executed one by one before it, and come by no gate.
            self._refuse("an INSERT without RETURNING")
        if column is not None and self.tenant_filtered:
            conflict = insert_stmt._post_values_clause
            if insert_stmt.select is not None or insert_stmt._multi_values:
                self._refuse("an INSERT whose rows are not parameters")
            elif conflict is not None and conflict.__visit_name__ != "on_conflict_do_nothing":
                self._refuse("an INSERT that updates the row it conflicts with")
            else:
                insert_stmt, given = self._follow_value(insert_stmt, column)
                if not given:
                    insert_stmt = insert_stmt.values({column: _tenant_bind(column.type)})
        return super().visit_insert(insert_stmt, *args, **kwargs)

    def _note_name(self, name: str, what: object, *, bare: bool = False) -> None:
        """Note what goes by a name in this statement; anonymous names are their own."""
        if isinstance(name, _truncated_label):
            return
        # By their hash: the ORM's copies of a table are the table.
        if hash(self._names.setdefault(name, what)) != hash(what):
            self._taken_names.add(name)
        if bare:
            self._bare_names.add(name)

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
            elif INFO_KEY not in element.info and not self.filtering.is_shared(
                element, translated=self.schema_translate_map is not None
            ):
                self._refuse(f"{element.fullname!r}, not known as a table that tenants share,")
            return None
        column = named_column(element, declared.column)
        if not self.filtering.is_seen(column):
            self.tenant_unseen = (*self.tenant_unseen, column)
            if self.filtering.is_tenants(element.name, element.schema):
                self._refuse(f"{element.fullname!r}, of which {column.name!r} is not the tenant,")
        return named_column(table, declared.column)

    def _follow_value(self, statement: Any, column: Column[Any]) -> tuple[Any, bool]:
        """Note the value that an INSERT or UPDATE gives the tenant column, and whether it does.

        Returns the statement, in which the value has the column's type: the compiler would make
        a copy of one without a type, which could not be followed to its parameter.
        """
        # SQLAlchemy 2.0 keeps ordered values by themselves.
        ordered = list(getattr(statement, "_ordered_values", None) or ())
        assigned = dict(statement._values or ordered)
        values = {k: v for k, v in assigned.items() if _key(k) == column.key}
        for key, value in values.items():
            if not isinstance(value, BindParameter):
                self._refuse("an expression for the tenant column")
                continue
            typed = value._with_binary_element_type(column.type) if value.type._isnull else value
            assigned[key] = typed
            self.tenant_values = (*self.tenant_values, typed)
        if values:
            statement = statement._clone()
            if ordered:
                statement._ordered_values = list(assigned.items())
            else:
                statement._values = immutabledict(assigned)
        if not values and column.key in (self.column_keys or ()):
            self.tenant_values = (*self.tenant_values, column.key)
            return statement, True
        return statement, bool(values)


def _key(column: Any) -> object:
    return getattr(column, "key", column)


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

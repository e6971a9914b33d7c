"""The gate: where explicit filters are the only wall, nothing passes that they do not confine."""

from typing import Any, Final, cast

from sqlalchemy import BindParameter, Executable, Table
from sqlalchemy.schema import DDL
from sqlalchemy.sql import visitors
from sqlalchemy.sql.compiler import Compiled, DDLCompiler

from tenantry.config import TenancyConfig
from tenantry.context import Tenant
from tenantry.exceptions import (
    CrossTenantError,
    IsolationNotEnforcedError,
    MissingTenantError,
    UnfilterableStatementError,
)
from tenantry.filters import BIND_NAME, FilteringCompiler
from tenantry.models import tenant_column

_FREE_TEXT_DDL: Final = frozenset({"CreateTableAs", "CreateView"})
# What the pool and the dialect ask a connection themselves.
_HARMLESS: Final = frozenset({"select 1", "show transaction isolation level"})


def check_statement(
    compiled: Compiled | None, rows: list[dict[str, Any]] | None, tenant: Tenant | None
) -> None:
    """Pass a statement that is proven to stay inside its tenant.

    Args:
        compiled: the compiled statement; None for a string given to the driver.
        rows: its parameters, one dict for each row.
        tenant: that of the transaction it belongs to.

    Raises:
        UnfilterableStatementError: it holds something that filters do not reach.
        CrossTenantError: a parameter names another organization.
        MissingTenantError: it writes to a tenant table and no tenant is bound.
    """
    refusal = _refusal(compiled)
    if refusal is not None:
        raise UnfilterableStatementError(
            f"{refusal} cannot be filtered, and explicit filters are the only wall between "
            "tenants here: write it with mapped classes and Core constructs, or put the database's "
            "own wall in place (`tenantry status` says what is missing)"
        )
    if isinstance(compiled, FilteringCompiler):
        names = [_parameter(compiled, value) for value in compiled.tenant_values]
        if BIND_NAME in compiled.binds:
            names.append(BIND_NAME)
        for name in names:
            for row in rows or ({},):
                _check_value(row.get(name), tenant)


def check_seen(compiled: FilteringCompiler) -> None:
    """Pass a statement whose tenant tables the probe has looked at; others may have no wall.

    Raises:
        IsolationNotEnforcedError: it names one that did not exist then, or whose tenant column only
            the models know.
    """
    for column in compiled.tenant_unseen:
        if not compiled.filtering.is_seen(column):
            raise IsolationNotEnforcedError(
                f"tenant table {column.table.fullname!r} (by {column.name!r}) was not looked at "
                "when this process connected, so nothing says that it is walled off: give "
                "create_tenant_engine() the models' metadata, and call engine.dispose() after "
                "creating tables"
            )


def check_tenant_given(statement: Executable | None, config: TenancyConfig) -> None:
    """Pass a statement without a tenant that is not the ORM's, or asks no tenant table.

    Raises:
        MissingTenantError: it is and does: no rows would be no answer.
    """
    if statement is None or statement._propagate_attrs.get("compile_state_plugin") != "orm":
        return
    for element in visitors.iterate(cast("visitors.ExternallyTraversible", statement)):
        table = getattr(element, "table", element)
        if isinstance(table, Table) and tenant_column(table, config) is not None:
            raise MissingTenantError(
                f"table {table.name!r} was queried without a tenant: call set_tenant(session, "
                "organization_id) first, or use tenant_scope()"
            )


def _refusal(compiled: Compiled | None) -> str | None:
    """Return what no filter reaches in a statement; None if there is nothing."""
    if compiled is None:
        return "raw SQL text"
    if isinstance(compiled, DDLCompiler):
        kind = type(compiled.statement)
        own = kind.__module__.partition(".")[0] == "sqlalchemy"
        custom = not own or hasattr(kind, "_compiler_dispatcher")
        if custom or issubclass(kind, DDL) or kind.__name__ in _FREE_TEXT_DDL:
            return f"{kind.__name__}, DDL that can hold a query,"
        return None
    if not isinstance(compiled, FilteringCompiler) or not compiled.tenant_filtered:
        return "a statement compiled before the wall was found missing (restart the process)"
    return compiled.tenant_refusal


def _parameter(compiled: FilteringCompiler, value: BindParameter[Any] | str) -> str:
    """Return the name under which a value for a tenant column is passed."""
    if isinstance(value, str):
        return value
    name = compiled.bind_names.get(value)
    if name is None:
        raise UnfilterableStatementError(
            "a value for the tenant column cannot be followed to its parameter: leave the column "
            "out, it is filled in"
        )
    return name


def _check_value(value: object, tenant: Tenant | None) -> None:
    if tenant is None:
        raise MissingTenantError(
            "a row of a tenant table was to be written without a tenant: call set_tenant(session, "
            "organization_id) first, or use tenant_scope()"
        )
    if str(value) != str(tenant.organization_id):
        raise CrossTenantError(
            f"a statement names organization {value}, and its transaction is for organization "
            f"{tenant.organization_id}: leave the tenant out of its parameters, it is filled in"
        )


class CursorGuard:
    """Keeps a cursor from running what the engine has not checked; mixed into a cursor class."""

    checked = False

    def execute(self, query: Any, vars: Any = None) -> None:  # noqa: A002 - the driver's own name
        """Execute a checked statement, or what the pool asks of a connection."""
        if not self.checked and str(query).strip().lower() not in _HARMLESS:
            self._refuse("execute")
        super().execute(query, vars)  # type: ignore[misc]

    def executemany(self, query: Any, vars_list: Any) -> None:
        """Execute a checked statement for several rows."""
        if not self.checked:
            self._refuse("executemany")
        super().executemany(query, vars_list)  # type: ignore[misc]

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

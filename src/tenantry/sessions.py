"""Sessions that carry one tenant, from transaction to transaction and connection to connection."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from sqlalchemy import Connection, Engine, Executable, MetaData, Table, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import (
    Mapper,
    ORMExecuteState,
    Session,
    SessionTransaction,
    UOWTransaction,
    object_mapper,
    scoped_session,
    sessionmaker,
)
from sqlalchemy.sql import visitors

from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import Tenant
from tenantry.database import (
    SESSION_OPTION,
    TENANCY_OPTION,
    TENANT_OPTION,
    Tenancy,
    connection_state,
)
from tenantry.environment import default_engine
from tenantry.exceptions import (
    ConfigurationError,
    CrossTenantError,
    MissingTenantError,
    TenantSwitchError,
)
from tenantry.models import tenant_column

_INFO_KEY: Final = "tenantry"

Target = Session | scoped_session[Any] | Connection


class _Binding:
    """The tenant of one Session and the connections that its transaction is using."""

    __slots__ = ("connections", "session", "tenant")

    def __init__(self, session: Session) -> None:
        self.session = weakref.ref(session)
        self.tenant: Tenant | None = None
        self.connections: list[Connection] = []

    def __call__(self) -> Tenant | None:
        """Return the tenant while the Session is in a transaction; a Connection may outlive it."""
        session = self.session()
        return self.tenant if session is not None and session.in_transaction() else None


def set_tenant(target: Target, organization_id: object, user_id: object = None) -> Tenant:
    """Bind a tenant: from now on each transaction of the target runs for it and sees nothing else.

    The ids are validated before anything is sent. An open transaction is told at once, each later
    one when it begins, on whatever connection it gets.

    Args:
        target: a Session (or scoped_session) or a Connection of a protected engine.
        organization_id: a uuid, as `uuid.UUID` or text.
        user_id: a uuid, or None.

    Returns:
        The tenant that is now bound.

    Raises:
        InvalidTenantError: an id is not of the configured type; the target is unchanged.
        TenantSwitchError: another tenant is bound and still in use, or a savepoint is open.
        ConfigurationError: the target's engine is not protected.
    """
    if isinstance(target, Connection):
        return _bind_connection(target, organization_id, user_id)
    session = _session_of(target)
    tenancy = _tenancy_of(session)
    if tenancy is None and _bind_of(session) is not None:
        raise ConfigurationError(
            "this Session's engine is not protected, so a tenant would be forgotten with its "
            "first transaction: create the engine with create_tenant_engine()"
        )
    config = DEFAULT_CONFIG if tenancy is None else tenancy.config
    tenant = Tenant.parse(organization_id, user_id, config=config)
    binding = _binding_of(session)
    if binding.tenant != tenant:
        _refuse_switch(session, binding, tenant, config)
        binding.tenant = tenant
        for connection in binding.connections:
            _tell(connection, tenant)
    return tenant


def clear_tenant(target: Target) -> None:
    """Unbind the tenant; the target sees no tenant's rows until another one is bound.

    Raises:
        TenantSwitchError: the tenant is still in use, as for `set_tenant`.
    """
    if isinstance(target, Connection):
        if target.in_transaction() and target.get_execution_options().get(TENANT_OPTION):
            raise TenantSwitchError(
                "the Connection is in a transaction for a tenant: commit or roll back first"
            )
        target.execution_options(**{TENANT_OPTION: None})
        return
    session = _session_of(target)
    binding = _binding_of(session)
    if binding.tenant is not None:
        _refuse_switch(session, binding, None, DEFAULT_CONFIG)
        binding.tenant = None


def get_tenant(target: Target) -> Tenant | None:
    """Return the tenant bound to a Session or Connection, or None."""
    if isinstance(target, Connection):
        tenant: Tenant | None = target.get_execution_options().get(TENANT_OPTION)
        return tenant
    binding: _Binding | None = _session_of(target).info.get(_INFO_KEY)
    return None if binding is None else binding.tenant


class _DefaultSessions(sessionmaker[Session]):
    """Makes Sessions on the environment's engine, which is created with the first of them."""

    def __init__(self, metadata: MetaData | None) -> None:
        super().__init__()
        self.metadata = metadata

    def __call__(self, **local_kw: Any) -> Session:
        if self.kw.get("bind") is None and "bind" not in local_kw and "binds" not in self.kw:
            local_kw["bind"] = default_engine(self.metadata)
        return super().__call__(**local_kw)


def default_sessions(metadata: MetaData | None = None) -> sessionmaker[Session]:
    """Return what makes Sessions on `default_engine(metadata)`, created with the first of them.

    `configure(bind=engine)` on it chooses another engine.
    """
    return _DefaultSessions(metadata)


SessionLocal: Final = default_sessions()
"""Makes Sessions on `default_engine()`; `SessionLocal.configure(bind=engine)` chooses another."""


@contextmanager
def tenant_scope(
    organization_id: object,
    user_id: object = None,
    *,
    sessions: Callable[[], Session] = SessionLocal,
) -> Iterator[Session]:
    """Open a Session for one tenant: committed at the end, rolled back on an exception, closed.

    Args:
        organization_id: as for `set_tenant`.
        user_id: as for `set_tenant`.
        sessions: makes the Session.

    Raises:
        InvalidTenantError: an id is not of the configured type; nothing was sent.
    """
    with sessions() as session:
        set_tenant(session, organization_id, user_id)
        with session.begin():
            yield session


def _bind_connection(connection: Connection, organization_id: object, user_id: object) -> Tenant:
    connection_state(connection)
    tenancy: Tenancy = connection.get_execution_options()[TENANCY_OPTION]
    tenant = Tenant.parse(organization_id, user_id, config=tenancy.config)
    current = get_tenant(connection)
    if current == tenant:
        return tenant
    if connection.in_nested_transaction():
        raise TenantSwitchError(
            "a savepoint is open, and rolling back to it would bring the old tenant back: bind "
            "the tenant at the start of the transaction"
        )
    if current is not None and connection.in_transaction():
        raise TenantSwitchError(
            f"the Connection is in a transaction for {current}: commit or roll back before "
            f"binding {tenant}"
        )
    connection.execution_options(**{TENANT_OPTION: tenant})
    if connection.in_transaction():
        _tell(connection, tenant)
    return tenant


def _refuse_switch(
    session: Session, binding: _Binding, tenant: Tenant | None, config: TenancyConfig
) -> None:
    """Raise TenantSwitchError unless nothing of the Session belongs to another tenant."""
    if session.in_nested_transaction() and binding.connections:
        raise TenantSwitchError(
            "a savepoint is open, and rolling back to it would bring the old tenant back: bind "
            "the tenant at the start of the transaction"
        )
    if binding.tenant is None:
        for instance in session.identity_map.values():
            _check_owner(instance, tenant, config)
        return
    if binding.connections:
        raise TenantSwitchError(
            f"the Session is in a transaction for {binding.tenant}: commit or roll back, then "
            f"close() it, before binding {tenant or 'no tenant'}; or use another Session"
        )
    if session.new or session.identity_map.values():
        raise TenantSwitchError(
            f"the Session holds objects of {binding.tenant}, which {tenant or 'no tenant'} would "
            "be served from memory: close() or expunge_all() it first, or use another Session"
        )


def _tell(connection: Connection, tenant: Tenant | None) -> None:
    tenancy: Tenancy = connection.get_execution_options()[TENANCY_OPTION]
    tenancy.write(connection, tenant)


def _session_of(target: Session | scoped_session[Any]) -> Session:
    if isinstance(target, scoped_session):
        session: Session = target()
        return session
    return target


def _bind_of(session: Session) -> Engine | Connection | None:
    try:
        return session.get_bind()
    except UnboundExecutionError:
        return None


def _tenancy_of(session: Session) -> Tenancy | None:
    bind = _bind_of(session)
    if bind is None:
        return None
    tenancy: Tenancy | None = bind.get_execution_options().get(TENANCY_OPTION)
    return tenancy


def _binding_of(session: Session) -> _Binding:
    binding: _Binding | None = session.info.get(_INFO_KEY)
    if binding is None or binding.session() is not session:
        binding = session.info[_INFO_KEY] = _Binding(session)
        if hasattr(session, "execution_options"):
            # SQLAlchemy 2.1 passes these to the Connection before it begins, so that the tenant is
            # written once; with 2.0 the Session's own event writes it right after.
            session.execution_options = session.execution_options.union({SESSION_OPTION: binding})
    return binding


def _tenant_attribute(mapper: Mapper[Any], config: TenancyConfig) -> str | None:
    """Return the name of the mapped attribute that holds the tenant; None for shared tables."""
    for table in reversed(mapper.tables):
        column = tenant_column(table, config)
        if column is not None:
            return mapper.get_property_by_column(column).key
    return None


def _check_owner(instance: object, tenant: Tenant | None, config: TenancyConfig) -> None:
    """Raise CrossTenantError if a mapped object belongs to another organization."""
    attribute = _tenant_attribute(object_mapper(instance), config)
    owner = None if attribute is None else vars(instance).get(attribute)
    if owner is not None and (tenant is None or owner != tenant.organization_id):
        raise CrossTenantError(
            f"{type(instance).__name__} belongs to organization {owner}, and the Session to "
            f"{tenant or 'no tenant'}: work on it in a Session of its own organization"
        )


@event.listens_for(Session, "after_begin")
def _on_after_begin(
    session: Session, _transaction: SessionTransaction, connection: Connection
) -> None:
    """Write the Session's tenant where the connection's own begin could not know it."""
    if TENANCY_OPTION not in connection.get_execution_options():
        return
    binding = _binding_of(session)
    if connection not in binding.connections:
        binding.connections.append(connection)
    state = connection_state(connection)
    own = get_tenant(connection)
    if own is not None and binding.tenant is not None and own != binding.tenant:
        raise TenantSwitchError(
            f"the Session is bound to {binding.tenant} and its Connection to {own}"
        )
    wanted = binding.tenant or own
    # After a ROLLBACK TO the server is back at what was written when the transaction began; the
    # savepoint may be the Connection's own, of a Session that joined by create_savepoint.
    savepoint = connection.in_nested_transaction()
    if state.written != wanted or (savepoint and state.written_at_begin != wanted):
        _tell(connection, wanted)


@event.listens_for(Session, "after_transaction_end")
def _on_after_transaction_end(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        binding: _Binding | None = session.info.get(_INFO_KEY)
        if binding is not None:
            binding.connections.clear()


@event.listens_for(Session, "do_orm_execute")
def _on_orm_execute(state: ORMExecuteState) -> None:
    """Refuse an ORM statement on a tenant table without a tenant: no rows would be no answer."""
    if not state.is_orm_statement or get_tenant(state.session) is not None:
        return
    tenancy = _tenancy_of(state.session)
    if tenancy is None or _bound_through_connection(state.session):
        return
    for table in _tables_of(state.statement):
        if tenant_column(table, tenancy.config) is not None:
            raise MissingTenantError(
                f"table {table.name!r} was queried without a tenant: call set_tenant(session, "
                "organization_id) first, or use tenant_scope()"
            )


@event.listens_for(Session, "before_flush")
def _on_before_flush(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """File new objects under the Session's tenant, and refuse those of another."""
    tenancy = _tenancy_of(session)
    if tenancy is None:
        return
    tenant = get_tenant(session)
    for instance in (*session.new, *session.dirty, *session.deleted):
        attribute = _tenant_attribute(object_mapper(instance), tenancy.config)
        if attribute is None:
            continue
        if tenant is None:
            if _bound_through_connection(session):
                continue
            raise MissingTenantError(
                f"{type(instance).__name__} was written without a tenant: call "
                "set_tenant(session, organization_id) first, or use tenant_scope()"
            )
        if instance in session.new and vars(instance).get(attribute) is None:
            setattr(instance, attribute, tenant.organization_id)
        else:
            _check_owner(instance, tenant, tenancy.config)


@event.listens_for(Session, "before_attach")
def _on_before_attach(session: Session, instance: object) -> None:
    """Refuse an object of another organization, which the identity map would serve later."""
    tenant = get_tenant(session)
    if tenant is not None:
        tenancy = _tenancy_of(session)
        _check_owner(instance, tenant, DEFAULT_CONFIG if tenancy is None else tenancy.config)


def _bound_through_connection(session: Session) -> bool:
    """Whether the Session works on a Connection that has a tenant of its own."""
    return isinstance(session.bind, Connection) and get_tenant(session.bind) is not None


def _tables_of(statement: Executable) -> Iterator[Table]:
    """Yield the tables that a statement names, in its columns, joins and sub-queries."""
    for element in visitors.iterate(cast("visitors.ExternallyTraversible", statement)):
        table = getattr(element, "table", element)
        if isinstance(table, Table):
            yield table

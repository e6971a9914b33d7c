"""Sessions that carry one tenant, from transaction to transaction and connection to connection."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from sqlalchemy import Connection, Engine, MetaData, event
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.orm import (
    Session,
    SessionTransaction,
    UOWTransaction,
    object_mapper,
    scoped_session,
    sessionmaker,
)

from tenantry.binding import Binding, add_user, users_of
from tenantry.config import DEFAULT_CONFIG, TenancyConfig
from tenantry.context import Tenant
from tenantry.database import (
    SESSION_OPTION,
    TENANCY_OPTION,
    TENANT_OPTION,
    Tenancy,
    bound_tenant,
    connection_state,
)
from tenantry.environment import default_engine
from tenantry.exceptions import (
    ConfigurationError,
    MissingTenantError,
    TenantSwitchError,
)
from tenantry.ownership import check_owner, tenant_attribute

_INFO_KEY: Final = "tenantry"

Target = Session | scoped_session[Any] | Connection


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
    config, heard_at_begin, known = DEFAULT_CONFIG, session.twophase, False
    for bind in _binds_of(session):
        # All of them share their names for tenants.
        config = _protection_of(bind).config
        heard_at_begin = heard_at_begin or bool(bind.dispatch.begin)
        known = True
    tenant = Tenant.parse(organization_id, user_id, config=config)
    binding = _binding_of(session)
    if isinstance(session.bind, Connection):
        # Others may be using it when the Session's begin fails, or before its event is heard.
        add_user(session.bind, binding)
    if heard_at_begin or not known:
        _bind_early(session, binding)
    if binding.tenant != tenant:
        _refuse_switch(session, binding, tenant, config)
        before, binding.tenant = binding.tenant, tenant
        try:
            for connection in binding.connections:
                _tell(connection)
        except BaseException:
            binding.tenant = before
            raise
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
        _refuse_stale_objects(target, get_tenant(target))
        if not target.in_transaction():
            _protection_of(target).write_between_transactions(target, None)
        _write_own(target, None)
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
    binding = _existing_binding(_session_of(target))
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
    tenancy = _protection_of(connection)
    tenant = Tenant.parse(organization_id, user_id, config=tenancy.config)
    current = get_tenant(connection)
    if current == tenant:
        _write_own(connection, tenant)
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
    _refuse_stale_objects(connection, current)
    _write_own(connection, tenant)
    try:
        if connection.in_transaction():
            _tell(connection)
        else:
            tenancy.write_between_transactions(connection, tenant)
    except BaseException:
        _write_own(connection, current)
        raise
    return tenant


def _write_own(connection: Connection, tenant: Tenant | None) -> None:
    connection.execution_options(**{TENANT_OPTION: tenant})
    if not connection.invalidated:
        # For its next begin, which is told of the physical connection alone.
        connection_state(connection).own = tenant


def _refuse_stale_objects(connection: Connection, current: Tenant | None) -> None:
    """Raise TenantSwitchError if a Session on this Connection holds objects of its tenant."""
    for user in users_of(connection):
        session = user.session()
        if session is not None and (
            # What is new is filed under whoever is bound first.
            session.identity_map.values() or (current is not None and session.new)
        ):
            raise TenantSwitchError(
                f"a Session on this Connection holds objects of {current or 'no tenant'}, which "
                "another tenant would be served from memory: close() or expunge_all() it first"
            )


def _holds_objects(session: Session) -> bool:
    return bool(session.new or session.identity_map.values())


def _refuse_switch(
    session: Session, binding: Binding, tenant: Tenant | None, config: TenancyConfig
) -> None:
    """Raise TenantSwitchError unless nothing of the Session belongs to another tenant."""
    if session.in_nested_transaction() and binding.connections:
        raise TenantSwitchError(
            "a savepoint is open, and rolling back to it would bring the old tenant back: bind "
            "the tenant at the start of the transaction"
        )
    if binding.tenant is None:
        for instance in session.identity_map.values():
            check_owner(instance, tenant, config)
        return
    if binding.connections:
        raise TenantSwitchError(
            f"the Session is in a transaction for {binding.tenant}: commit or roll back, then "
            f"close() it, before binding {tenant or 'no tenant'}; or use another Session"
        )
    if _holds_objects(session):
        raise TenantSwitchError(
            f"the Session holds objects of {binding.tenant}, which {tenant or 'no tenant'} would "
            "be served from memory: close() or expunge_all() it first, or use another Session"
        )


def _tell(connection: Connection) -> None:
    """Write the tenant into an open transaction, if all who use the Connection agree on it."""
    _protection_of(connection).write(connection, bound_tenant(connection))


def _session_of(target: Session | scoped_session[Any]) -> Session:
    session = target() if isinstance(target, scoped_session) else target
    if not isinstance(session, Session):
        raise ConfigurationError(
            f"{type(session).__name__} is neither a Session nor a Connection, to which a tenant is "
            "bound; for those of sqlalchemy.ext.asyncio there is tenantry.asyncio"
        )
    return session


def _binds_of(session: Session) -> Iterator[Engine | Connection]:
    """Yield the engines and connections that a Session was given."""
    if session.bind is not None:
        yield session.bind
    # `binds` from SQLAlchemy 2.1 on; before, a name of the class's own.
    attributes = vars(session)
    yield from attributes.get("binds", attributes.get("_Session__binds", {})).values()


def _tenancy_of(session: Session) -> Tenancy | None:
    """Return the layer of the Session's engines; all of them share its names for tenants."""
    for bind in _binds_of(session):
        tenancy: Tenancy | None = bind.get_execution_options().get(TENANCY_OPTION)
        if tenancy is not None:
            return tenancy
    return None


def _protection_of(bind: Engine | Connection) -> Tenancy:
    tenancy: Tenancy | None = bind.get_execution_options().get(TENANCY_OPTION)
    if tenancy is None:
        raise ConfigurationError(
            f"the engine of {bind.engine.url!r} is not protected, so a tenant would be forgotten "
            "with its first transaction: create it with create_tenant_engine(), or call "
            "protect_engine() before anything else is made from it"
        )
    return tenancy


def _existing_binding(session: Session) -> Binding | None:
    """Return the Session's own binding; `info` may be a copy of another Session's."""
    binding: Binding | None = session.info.get(_INFO_KEY)
    return binding if binding is not None and binding.session() is session else None


def _binding_of(session: Session) -> Binding:
    binding = _existing_binding(session)
    if binding is None:
        binding = session.info[_INFO_KEY] = Binding(session)
    return binding


def _bind_early(session: Session, binding: Binding) -> None:
    """Let a Connection know the tenant before it begins, when something may be sent already.

    From SQLAlchemy 2.1 on, which passes it a Session's options; with 2.0 the Session's own event
    tells it right after.
    """
    options = getattr(session, "execution_options", None)
    if options is not None and options.get(SESSION_OPTION) is not binding:
        session.execution_options = options.union({SESSION_OPTION: binding})


@event.listens_for(Session, "after_begin")
def _on_after_begin(
    session: Session, _transaction: SessionTransaction, connection: Connection
) -> None:
    """Write the Session's tenant where the connection's own begin could not know it."""
    if TENANCY_OPTION not in connection.get_execution_options():
        if get_tenant(session) is not None:
            _protection_of(connection)
        return
    add_user(connection, _binding_of(session))
    _protection_of(connection).update(connection, connection_state(connection))


@event.listens_for(Session, "before_flush")
def _on_before_flush(session: Session, _context: UOWTransaction, _instances: object) -> None:
    """File new objects under the Session's tenant, and refuse those of another."""
    tenancy = _tenancy_of(session)
    if tenancy is None:
        return
    tenant = get_tenant(session)
    for instance in (*session.new, *session.dirty, *session.deleted):
        attribute = tenant_attribute(object_mapper(instance), tenancy.config)
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
            check_owner(instance, tenant, tenancy.config)


@event.listens_for(Session, "before_attach")
def _on_before_attach(session: Session, instance: object) -> None:
    """Refuse an object of another organization, which the identity map would serve later."""
    tenant = get_tenant(session)
    if tenant is None:
        connection = _connection_of(session, instance)
        if connection is not None:
            tenant = get_tenant(connection)
            add_user(connection, _binding_of(session))
    if tenant is not None:
        tenancy = _tenancy_of(session)
        check_owner(instance, tenant, DEFAULT_CONFIG if tenancy is None else tenancy.config)


def _connection_of(session: Session, instance: object) -> Connection | None:
    """Return the Connection that an object will be written to, if the Session was given one."""
    bind: Engine | Connection | None = session.bind
    if bind is None or type(session).get_bind is not Session.get_bind:
        with suppress(UnboundExecutionError):
            bind = session.get_bind(object_mapper(instance))
    protected = bind is not None and TENANCY_OPTION in bind.get_execution_options()
    return bind if protected and isinstance(bind, Connection) else None


def _bound_through_connection(session: Session) -> bool:
    """Whether the Session works on a Connection that has a tenant of its own."""
    return isinstance(session.bind, Connection) and get_tenant(session.bind) is not None

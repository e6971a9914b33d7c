"""Assay's engine and Sessions, as the environment describes them."""

import functools
from typing import Any, Final

from sqlalchemy import Engine
from sqlalchemy.orm import Session, sessionmaker

from assay.models import Base
from tenantry import Settings, create_tenant_engine
from tenantry.environment import application_url


@functools.cache
def default_engine() -> Engine:
    """Return the process's engine for the application role; it knows Assay's tables.

    Errors about missing tables and unknown organizations name the cause for that reason, which
    `tenantry.default_engine` cannot do.

    Raises:
        ConfigurationError: the environment cannot be used.
        EmbeddedServerError: the embedded server could not be started.
    """
    settings = Settings.from_environment()
    return create_tenant_engine(
        application_url(settings),
        mode=settings.mode,
        scope=settings.scope,
        metadata=Base.metadata,
    )


class _DefaultSessions(sessionmaker[Session]):
    """Makes Sessions on the environment's engine, which is created with the first of them."""

    def __call__(self, **local_kw: Any) -> Session:
        if self.kw.get("bind") is None and "bind" not in local_kw:
            local_kw["bind"] = default_engine()
        return super().__call__(**local_kw)


SessionLocal: Final[sessionmaker[Session]] = _DefaultSessions()
"""Makes Sessions on `default_engine()`; `SessionLocal.configure(bind=engine)` chooses another."""

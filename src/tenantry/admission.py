"""Whether a new physical connection may be used, and how its tenants are kept apart on it."""

import logging
from collections.abc import Iterable
from typing import Any, get_args

from sqlalchemy import MetaData

from tenantry.config import ContextWay, Mode, Scope, TenancyConfig
from tenantry.context import command_writer, function_writer, setting_query
from tenantry.drivers import Driver
from tenantry.exceptions import (
    ConfigurationError,
    IsolationNotEnforcedError,
    MissingMigrationsError,
)
from tenantry.probe import Isolation
from tenantry.states import ConnectionState
from tenantry.ways import replace_session_tenant

logger = logging.getLogger("tenantry")


class Admission:
    """Admits the connections of one engine."""

    def __init__(
        self,
        config: TenancyConfig,
        driver: Driver,
        *,
        mode: Mode,
        scope: Scope,
        context: ContextWay,
        metadata: MetaData | None,
    ) -> None:
        """Keep what was asked for.

        Raises:
            ConfigurationError: there is no such mode, scope or way, or not with this driver.
        """
        for name, value, choices in (
            ("mode", mode, Mode),
            ("scope", scope, Scope),
            ("context", context, ContextWay),
        ):
            if value not in get_args(choices):
                raise ConfigurationError(
                    f"{name} {value!r} is unknown: use one of {', '.join(get_args(choices))}"
                )
        driver.check(mode=mode, scope=scope, context=context)
        self.config = config
        self.driver = driver
        self.mode = mode
        self.scope = scope
        self.context = context
        self.metadata = metadata
        self._warned = False

    def admit(self, dbapi_connection: Any) -> ConnectionState:
        """Return what the probe found, and what follows from it; say once what is wrong.

        Raises:
            MissingMigrationsError: tables are missing.
            IsolationNotEnforcedError: there is no wall, and nothing may stand in for it.
            ConfigurationError: what was asked for is not possible on this server.
        """
        isolation = self.driver.examine(dbapi_connection, self.config, self.metadata)
        where = f"database {isolation.database!r} as role {isolation.role!r}"
        if self.mode != "filters" and not isolation.tenant_tables:
            raise MissingMigrationsError(
                f"{where}: no table has the column {self.config.tenant_column!r}; run "
                "`alembic upgrade head` with MIGRATION_DATABASE_URL set to the owner's URL"
            )
        if isolation.missing_tables:
            raise MissingMigrationsError(
                f"{where}: the models describe {', '.join(isolation.missing_tables)}, which the "
                "database does not have; run `alembic upgrade head`"
            )
        if self.mode != "filters" and not isolation.enforced:
            self._do_without_wall(where, _summary(isolation.reasons))
        if isolation.stored_default:
            logger.warning(
                "%s starts with a tenant set by a stored default; the layer overwrites it, other "
                "clients do not: `alter role … reset %s`",
                where,
                self.config.organization_setting,
            )
        state = self.choose(dbapi_connection, isolation)
        if not state.local:
            replace_session_tenant(dbapi_connection, state, None)
        elif isolation.stored_default:
            # What goes round the transactions would find it.
            self.driver.send(dbapi_connection, state.clear)
        self.driver.attach(dbapi_connection, state)
        return state

    def _do_without_wall(self, where: str, reasons: str) -> None:
        if self.mode == "database" or not self.driver.guards_cursors:
            raise IsolationNotEnforcedError(
                f"{where} does not keep tenants apart: {reasons}. `tenantry status` shows the "
                "whole state; connect as a login that is a member of "
                f"{self.config.app_role!r} alone, after `alembic upgrade head`"
                + (
                    ""
                    if self.driver.guards_cursors
                    else "; explicit filters stand in for the wall with psycopg2 alone"
                )
            )
        if not self._warned:
            self._warned = True
            logger.warning(
                "ROW-LEVEL SECURITY DOES NOT KEEP TENANTS APART in %s: %s. Explicit filters "
                "stand in for it, and statements that cannot be filtered are refused.",
                where,
                reasons,
            )

    def choose(self, dbapi_connection: Any, isolation: Isolation) -> ConnectionState:
        """Choose how tenants are told on a connection of which the probe found this.

        Raises:
            ConfigurationError: what was asked for is not possible there.
        """
        shared_backend = isolation.pooled or isolation.citus
        if self.scope == "session" and shared_backend:
            raise ConfigurationError(
                "scope 'session' was asked for, and a pooler (or Citus) stands in between, where a "
                "session's setting is read by other clients: use scope 'auto' or 'transaction'"
            )
        local = self.scope == "transaction" or shared_backend or self.driver.always_local
        return ConnectionState(
            isolation=isolation,
            write=(
                command_writer(self.config)
                if isolation.citus
                else function_writer(self.config, local=local)
            ),
            way=self.driver.way(
                dbapi_connection, isolation, self.config, self.context, local=local
            ),
            clear=setting_query(self.config, local=False, version=isolation.postgresql)(None),
            local=local,
            guarded=self.mode == "filters" or not isolation.enforced,
        )


def _summary(reasons: Iterable[str], shown: int = 3) -> str:
    said = list(reasons)
    more = f"; and {len(said) - shown} more" if len(said) > shown else ""
    return "; ".join(said[:shown]) + more

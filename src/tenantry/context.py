"""The tenant as a value, and the ways of telling a PostgreSQL session who it is."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tenantry.config import DEFAULT_CONFIG, IdType, TenancyConfig
from tenantry.exceptions import InvalidTenantError

TenantId = uuid.UUID | int

CLOSE: Final = "close all"
"""Closes the cursors of a session, in which a policy asks for the tenant whenever a scan begins."""

_VALUES_LEFT_OUT_FROM: Final = 18
_INTEGER_RANGES = {"integer": range(-(2**31), 2**31), "bigint": range(-(2**63), 2**63)}


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organization and, optionally, one of its users; the ids are already validated."""

    organization_id: TenantId
    user_id: TenantId | None = None

    @classmethod
    def parse(
        cls,
        organization_id: object,
        user_id: object = None,
        *,
        config: TenancyConfig = DEFAULT_CONFIG,
    ) -> "Tenant":
        """Return the tenant of these ids; nothing but an id of the configured type passes.

        Args:
            organization_id: a `uuid.UUID` or its text (an int or its decimal digits where
                `config.id_type` is an integer type).
            user_id: the same, or None.
            config: says which type ids are of.

        Raises:
            InvalidTenantError: an id is empty, malformed or of another type.
        """
        return cls(
            organization_id=_parse_id(organization_id, "organization_id", config.id_type),
            user_id=None if user_id is None else _parse_id(user_id, "user_id", config.id_type),
        )

    def __str__(self) -> str:
        """Name the organization, and the user where there is one."""
        if self.user_id is None:
            return f"organization {self.organization_id}"
        return f"organization {self.organization_id}, user {self.user_id}"


class Principal(Protocol):
    """Who is authenticated: the user's id and the organization's."""

    @property
    def id(self) -> Any:
        """The user's id, or None for the organization itself."""

    @property
    def organization_id(self) -> Any:
        """The id of the user's organization."""


class Cursor(Protocol):
    """The part of a DB-API cursor that a writer of context needs."""

    def execute(self, operation: str, parameters: tuple[object, ...] = ..., /) -> object:
        """Execute one message."""


class ContextWriter(Protocol):
    """Sends a tenant, or its absence, to the server on an open cursor."""

    def __call__(
        self, cursor: Cursor, tenant: Tenant | None, *, close_cursors: bool = False
    ) -> None:
        """Send it; first close those of the tenant before, which would read the next one's rows."""


ContextQuery = Callable[[Tenant | None], str]
"""Renders what sets a tenant, or its absence, in one message; it holds no percent sign."""


def setting_query(config: TenancyConfig, *, local: bool, version: int | None) -> ContextQuery:
    """Return what renders both settings in the form that costs the server least.

    SET commands take it neither a plan nor an answer, nor a snapshot. pg_stat_statements counts
    them without their values from PostgreSQL 18 on; before, each tenant would be an entry.

    Args:
        config: names the two settings.
        local: end the setting with the transaction, as SET LOCAL does.
        version: PostgreSQL's; None for Citus, and for what only speaks its protocol.

    Source: PostgreSQL 18 release notes, pg_stat_statements.
    """
    if version is None or version < _VALUES_LEFT_OUT_FROM:
        return function_query(config, local=local)
    return _renderer("; ".join(_commands(config, local=local)))


def function_query(config: TenancyConfig, *, local: bool) -> ContextQuery:
    """Return what renders one `set_config` query for both settings, which any protocol can send.

    Args:
        config: names the two settings.
        local: end the setting with the transaction, as SET LOCAL does.

    Source: PostgreSQL manual, 9.28.1 Configuration Settings Functions.
    """
    ends = "true" if local else "false"
    return _renderer(
        f"select pg_catalog.set_config('{config.organization_setting}', '{{}}', {ends}), "
        f"pg_catalog.set_config('{config.user_setting}', '{{}}', {ends})"
    )


def _renderer(template: str) -> ContextQuery:
    """Return what renders the values, which are digits, letters and hyphens of parsed ids."""

    def render(tenant: Tenant | None) -> str:
        return template.format(*_values(tenant))

    return render


def function_writer(config: TenancyConfig, *, local: bool) -> ContextWriter:
    """Return a writer that sets both settings with one `set_config` query: one round trip.

    Args:
        config: names the two settings.
        local: end the setting with the transaction, as SET LOCAL does.

    Source: PostgreSQL manual, 9.28.1 Configuration Settings Functions.
    """
    statement = (
        f"select pg_catalog.set_config('{config.organization_setting}', %s, {local}), "
        f"pg_catalog.set_config('{config.user_setting}', %s, {local})"
    )

    def write(cursor: Cursor, tenant: Tenant | None, *, close_cursors: bool = False) -> None:
        cursor.execute(f"{CLOSE}; {statement}" if close_cursors else statement, _values(tenant))

    return write


def command_writer(config: TenancyConfig) -> ContextWriter:
    """Return a writer that sends SET LOCAL commands, each a message of its own.

    For Citus, whose workers see utility commands and nothing of a `set_config()` call. Values are
    rendered from parsed ids, since SET takes no parameters.
    """
    commands = _commands(config, local=True)

    def write(cursor: Cursor, tenant: Tenant | None, *, close_cursors: bool = False) -> None:
        if close_cursors:
            cursor.execute(CLOSE)
        cursor.execute("set local citus.propagate_set_commands = 'local'")
        for command, value in zip(commands, _values(tenant), strict=True):
            cursor.execute(command.format(value))

    return write


def _commands(config: TenancyConfig, *, local: bool) -> tuple[str, str]:
    command = "set local" if local else "set"
    organization, user = (
        ".".join(f'"{part}"' for part in setting.split("."))
        for setting in (config.organization_setting, config.user_setting)
    )
    return f"{command} {organization} = '{{}}'", f"{command} {user} = '{{}}'"


def _values(tenant: Tenant | None) -> tuple[str, str]:
    if tenant is None:
        return "", ""
    return str(tenant.organization_id), "" if tenant.user_id is None else str(tenant.user_id)


def _parse_id(value: object, name: str, id_type: IdType) -> TenantId:
    if id_type == "uuid":
        if type(value) is uuid.UUID:
            return value
        if isinstance(value, uuid.UUID):
            # A subclass could print anything; a plain UUID prints hexadecimal digits.
            return uuid.UUID(int=value.int)
        if isinstance(value, str):
            try:
                return uuid.UUID(value)
            except ValueError:
                pass
        expected = "a UUID"
    else:
        allowed = _INTEGER_RANGES[id_type]
        if isinstance(value, int) and not isinstance(value, bool) and int(value) in allowed:
            return int(value)
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            number = int(value) if len(value) <= 19 else allowed.stop
            if number in allowed:
                return number
        expected = f"of type {id_type}"
    raise InvalidTenantError(
        f"{name} must be {expected}, got {_shown(value)}: pass the id of whoever was authenticated"
    )


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"

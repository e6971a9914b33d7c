"""Errors of the library: one base class, one class for each thing a caller can act on."""


class TenancyError(Exception):
    """Base class of every error that the library raises itself."""


class ConfigurationError(TenancyError):
    """A setting, an environment variable or an argument is missing or cannot be used."""


class MissingExtraError(ConfigurationError, ImportError):
    """A dependency is not installed that one of the package's extras brings."""


class InvalidTenantError(TenancyError, ValueError):
    """An organization or user id is not of the configured type; nothing was sent to the server."""


class UnknownTenantError(TenancyError):
    """The bound organization does not exist, so a row could not be filed under it."""


class MissingTenantError(TenancyError):
    """A tenant table was used through the ORM by a Session that has no tenant."""


class TenantSwitchError(TenancyError):
    """A second tenant was bound where another one is still in use."""


class CrossTenantError(TenancyError):
    """A row of another organization was about to be written through the ORM."""


class UnfilterableStatementError(TenancyError):
    """Explicit filters are the only wall, and this statement is not proven to stay inside it."""


class IsolationNotEnforcedError(TenancyError):
    """The database does not keep tenants apart for this role, and the mode demands that it does."""


class UnsearchableError(TenancyError, ValueError):
    """A search is not made of an operator that is known to keep quiet, or its value is too long."""


class MissingMigrationsError(TenancyError):
    """The database lacks tables that the models describe."""


class DatabaseUnreachableError(TenancyError):
    """No connection could be made with this URL."""


class WrongRoleError(TenancyError):
    """The connected role may not do what was asked of it, or may do far more than it should."""


class RefusedMessageError(TenancyError):
    """A task's message does not prove whose it is; the task was not executed."""


class AuditError(TenancyError):
    """The audit could not be run, so that nothing is known; it is no verdict on the database."""


class EmbeddedServerError(TenancyError):
    """The embedded PostgreSQL server could not be found, started, reached or stopped."""

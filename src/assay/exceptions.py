"""Errors of Assay: one base class, one class for each thing a caller can act on."""


class AssayError(Exception):
    """Base class of every error that Assay raises itself."""


class InvalidValueError(AssayError, ValueError):
    """A name, an email address or an option cannot be stored or used."""


class UnknownOrganizationError(AssayError):
    """No organization has this name or id."""


class AmbiguousOrganizationError(AssayError):
    """Several organizations have this name, so it does not say which one is meant."""


class DuplicateTestSetError(AssayError):
    """The organization already has a set of tests of this name."""


class DuplicateUserError(AssayError):
    """The organization already has a user with this email address."""


class DuplicateEndpointError(AssayError):
    """The organization already has an endpoint of this name."""


class DuplicateConfigurationError(AssayError):
    """The organization already has a test configuration of this name."""


class InUseError(AssayError):
    """Something refers to what was to be deleted or changed, and would be lost or wrong with it."""


class EndedError(AssayError):
    """A task or a run has ended, so that there is nothing left to cancel."""


class UnknownReferenceError(AssayError):
    """A field names a row that the organization does not have."""


class ReusedKeyError(AssayError):
    """An idempotency key was used before, for another request."""


class ResultUnreachableError(AssayError):
    """The store of the tasks' results does not answer."""


class ProviderUnreachableError(AssayError):
    """The identity provider's keys cannot be fetched, so that nothing it signed can be verified."""


class UnreadableFileError(AssayError):
    """A file to import is missing, empty, not a file, not of a known format, or may not be read."""


class MissingColumnError(AssayError):
    """A file to import has no column, or no field, for something that a test must have."""


class BrokenRowError(AssayError):
    """A row of a file to import cannot become a test.

    Attributes:
        line: the physical line of the file on which the row begins, from 1.
        fault: what is wrong with it.
    """

    def __init__(self, line: int, fault: str) -> None:
        """Name the line in the message."""
        super().__init__(f"line {line}: {fault}")
        self.line = line
        self.fault = fault


class ConnectionLostError(AssayError):
    """The connection to the database broke in the middle of the work."""


class EndpointError(AssayError):
    """The application under test could not be asked, or did not answer as agreed.

    Attributes:
        received: what it did answer, as far as it was read.
    """

    def __init__(self, message: str, *, received: str | None = None) -> None:
        """Keep what was received for the result."""
        super().__init__(message)
        self.received = received


class RefusedEndpointError(EndpointError):
    """The endpoint's URL or address is one that Assay does not call."""


class JudgingError(AssayError):
    """An answer cannot be judged: what the test expects cannot be compared with anything."""


class UnknownEndpointError(AssayError, LookupError):
    """The organization has no endpoint of this id."""


class UnknownTestError(AssayError, LookupError):
    """The set holds no test of this id."""


class UnknownUserError(AssayError, LookupError):
    """The organization has no such user."""


class UnknownTaskError(AssayError, LookupError):
    """The organization has no background task of this id."""


class UnknownConfigurationError(AssayError, LookupError):
    """The organization has no test configuration of this id."""


class UnknownRunError(AssayError, LookupError):
    """The organization has no test run of this id."""


class UnknownTestSetError(AssayError, LookupError):
    """The organization has no set of tests of this id."""


class UnknownTokenError(AssayError, LookupError):
    """The organization has no API token of this id."""


class TooManyTestsError(AssayError):
    """A file to import holds more tests than one may."""


class AuthenticationError(AssayError):
    """A request does not prove who it is from; the message never says why."""


class RateLimitedError(AssayError):
    """An address failed to authenticate too often, or a token made too many requests.

    Attributes:
        retry_after: seconds, from 1.
    """

    def __init__(self, retry_after: int) -> None:
        """Keep how long to wait."""
        super().__init__(f"too many requests: try again in {retry_after} s")
        self.retry_after = retry_after

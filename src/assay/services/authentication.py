"""Who a request is from: an API token's user, or the one an identity provider vouches for."""

import ipaddress
import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any, Final

import jwt
from limits import RateLimitItem, parse
from limits.storage import storage_from_string
from limits.strategies import SlidingWindowCounterRateLimiter
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from assay.config import ApiPolicy, IdentityProvider
from assay.exceptions import AuthenticationError, ProviderUnreachableError, RateLimitedError
from assay.models import User
from assay.services.tokens import TOKEN_PREFIX, find_owner, note_use, token_hash
from tenantry import ConfigurationError, tenant_scope

logger = logging.getLogger("assay.authentication")

LONGEST_CREDENTIAL: Final = 8192
"""Characters; a JSON Web Token with many claims fits."""

_NOTED: Final = parse("1/minute")

_UNREACHABLE: Final = 10
"""Seconds for which an identity provider that did not answer is not asked again."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The user that a request is from, and the organization that it is for."""

    organization_id: uuid.UUID
    id: uuid.UUID


class Authenticator:
    """Tells who a credential stands for; where it stands for nobody, every answer is the same."""

    def __init__(self, policy: ApiPolicy, sessions: sessionmaker[Session]) -> None:
        """Prepare the counters and the identity provider's keys.

        Raises:
            ConfigurationError: a rate or the counters' storage cannot be used.
        """
        try:
            self._failures = parse(policy.failed_logins)
            self._requests = parse(policy.requests)
            storage = storage_from_string(policy.limits_storage, wrap_exceptions=True)
        except Exception as error:
            raise ConfigurationError(
                f"ASSAY_FAILED_LOGINS, ASSAY_REQUESTS_PER_TOKEN or ASSAY_LIMITS_STORAGE cannot be "
                f"used: {error}; write 30/minute, and memory:// or redis://…"
            ) from error
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        self._sessions = sessions
        provider = policy.identity_provider
        self._verifier = None if provider is None else Verifier(provider)

    def authenticate(self, credential: str, address: str) -> Principal:
        """Return the principal whose credential it is.

        Unknown, expired, revoked and malformed credentials take the same way through the database.
        An address that failed too often is refused before it, whatever it brings.

        Args:
            credential: as it came.
            address: the client's, which its failures are counted for; of IPv6, all of its /64.

        Raises:
            AuthenticationError: it is nobody's.
            ProviderUnreachableError: nobody can say whose it is; it counts as no failure.
            RateLimitedError: the address failed too often, or the token made too many requests.
        """
        place = _place(address)
        if not self._limiter.test(self._failures, "failures", place):
            raise self._limited(self._failures, "failures", place)
        # By its hash: who knows no more than the prefix cannot use up another's allowance.
        digest = token_hash(credential).hex()
        if not self._limiter.hit(self._requests, "requests", digest):
            raise self._limited(self._requests, "requests", digest)
        principal = self._identify(credential, digest)
        if principal is None:
            self._limiter.hit(self._failures, "failures", place)
            raise AuthenticationError("a valid token is needed")
        return principal

    def _identify(self, credential: str, digest: str) -> Principal | None:
        if self._verifier is not None and not credential.startswith(TOKEN_PREFIX):
            claimed = self._verifier.verify(credential)
            return claimed if claimed is not None and self._exists(claimed) else None
        with self._sessions() as session:
            owner = find_owner(session, credential)
        if owner is None:
            return None
        if self._limiter.hit(_NOTED, "noted", digest):
            with tenant_scope(owner.organization_id, sessions=self._sessions) as session:
                note_use(session, credential)
        return Principal(owner.organization_id, owner.user_id)

    def _exists(self, claimed: Principal) -> bool:
        """Look for the user inside the organization of the claims, under row-level security."""
        with tenant_scope(claimed.organization_id, sessions=self._sessions) as session:
            return session.scalar(select(User.id).where(User.id == claimed.id)) is not None

    def _limited(self, item: RateLimitItem, *key: str) -> RateLimitedError:
        window = self._limiter.get_window_stats(item, *key)
        return RateLimitedError(max(1, int(window.reset_time - time.time()) + 1))


class Verifier:
    """Verifies JSON Web Tokens of one provider, with the algorithms that the configuration pins."""

    def __init__(self, provider: IdentityProvider) -> None:
        """Keep the provider; its key set is fetched when first needed."""
        self._provider = provider
        self._keys = (
            None
            if provider.jwks_url is None
            # Its set is kept for five minutes; single keys, once kept, would never be forgotten.
            else _ProviderKeys(provider.jwks_url, cache_keys=False, timeout=5)
        )

    def verify(self, token: str) -> Principal | None:
        """Return the user and organization that the provider vouches for, or None.

        Raises:
            ProviderUnreachableError: the provider's keys cannot be fetched.

        Source: RFC 8725, JSON Web Token Best Current Practices.
        """
        provider = self._provider
        try:
            claims = jwt.decode(
                token,
                self._key_of(token),
                algorithms=list(provider.algorithms),
                issuer=provider.issuer,
                audience=provider.audience,
                options={
                    "require": [
                        *("exp", "iss", "aud"),
                        provider.organization_claim,
                        provider.user_claim,
                    ]
                },
            )
            return Principal(
                _uuid(claims[provider.organization_claim]), _uuid(claims[provider.user_claim])
            )
        except jwt.PyJWKClientConnectionError as error:
            raise ProviderUnreachableError(
                f"the identity provider's keys cannot be fetched: {error}"
            ) from error
        except (jwt.PyJWTError, ValueError) as error:
            logger.info("a JSON Web Token was refused: %s", type(error).__name__)
        return None

    def _key_of(self, token: str) -> Any:
        if self._keys is not None:
            return self._keys.get_signing_key_from_jwt(token)
        return self._provider.key


class _ProviderKeys(jwt.PyJWKClient):
    """The provider's keys; one that does not answer is left alone for a while.

    Fetching is for one thread at a time: without this each request in turn would wait for the
    timeout, in a thread that those with API tokens need too.
    """

    _again_at = 0.0

    def fetch_data(self) -> Any:
        if time.monotonic() < self._again_at:
            raise jwt.PyJWKClientConnectionError("it did not answer just now")
        try:
            return super().fetch_data()
        except (jwt.PyJWKClientConnectionError, OSError) as error:
            self._again_at = time.monotonic() + _UNREACHABLE
            raise jwt.PyJWKClientConnectionError(str(error)) from error


def _place(address: str) -> str:
    """Return what one client cannot leave by choosing another address: of IPv6, its network.

    Source: RFC 6177, IPv6 Address Assignment to End Sites.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))


def _uuid(claim: object) -> uuid.UUID:
    if not isinstance(claim, str):
        raise ValueError("the claim is no text")  # noqa: TRY004 - what the caller expects
    return uuid.UUID(claim)

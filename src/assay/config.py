"""What the environment says about running tests, and about serving the API."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from dotenv import dotenv_values, find_dotenv

from tenantry import ConfigurationError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST_ANSWER: Final = 256 * 1024

_ALGORITHMS: Final = frozenset(
    {f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)} | {"EdDSA"}
)

LONGEST_ENDPOINT_TIMEOUT: Final = 600
"""Seconds; the table of endpoints holds no longer ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointPolicy:
    """Which applications under test may be called, and how much of an answer is read.

    Attributes:
        http_hosts: hosts that may be called without TLS.
        networks: addresses that may be called although they are private.
        longest_answer: bytes.
    """

    http_hosts: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    longest_answer: int = _LONGEST_ANSWER


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPolicy:
    """When a run that makes no progress is helped, and when it is given up, in seconds.

    Attributes:
        stalled_after: tests without a result are sent out again, so long after the longest time
            that the endpoint may take.
        given_up_after: they are filed as errors.
        swept_every: how often runs are looked at.
    """

    stalled_after: float = 120
    given_up_after: float = 3600
    swept_every: float = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityProvider:
    """Whose JSON Web Tokens are believed, and what must be in them.

    Attributes:
        issuer: the claim `iss`, exactly.
        audience: what the claim `aud` must name.
        key: its public key, in PEM; None where `jwks_url` says where its keys are.
        jwks_url: of its key set.
        algorithms: of signatures; none that works with a shared secret.
        organization_claim: the name of the claim that holds the organization's id.
        user_claim: the name of the claim that holds the user's id.
    """

    issuer: str
    audience: str
    key: str | None = None
    jwks_url: str | None = None
    algorithms: tuple[str, ...] = ("RS256",)
    organization_claim: str = "organization_id"
    user_claim: str = "sub"

    def __post_init__(self) -> None:
        """Refuse what would believe too much.

        Raises:
            ConfigurationError: there is no key or there are two, or an algorithm is unknown.
        """
        if (self.key is None) == (self.jwks_url is None):
            raise ConfigurationError("set one of ASSAY_JWT_KEY and ASSAY_JWT_JWKS_URL")
        if self.jwks_url is not None and not self.jwks_url.startswith("https://"):
            raise ConfigurationError("ASSAY_JWT_JWKS_URL must begin with https://")
        unknown = set(self.algorithms) - _ALGORITHMS
        if unknown or not self.algorithms:
            raise ConfigurationError(
                f"ASSAY_JWT_ALGORITHMS: use some of {', '.join(sorted(_ALGORITHMS))}; what works "
                "with a shared secret is not among them"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPolicy:
    """How much the API takes, and from whom.

    Attributes:
        largest_body: bytes of a request.
        largest_import: bytes of a file of tests.
        most_tests: of one file.
        failed_logins: how many an address may have, as `limits` writes it.
        requests: how many a token may make.
        limits_storage: where they are counted: memory://, or a Redis URL for several processes.
        identity_provider: whose JSON Web Tokens are accepted beside API tokens.
    """

    largest_body: int = 1024 * 1024
    largest_import: int = 64 * 1024 * 1024
    most_tests: int = 100_000
    failed_logins: str = "30/minute"
    requests: str = "6000/minute"
    limits_storage: str = "memory://"
    identity_provider: IdentityProvider | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Self:
        """Read the policy.

        Raises:
            ConfigurationError: a value is malformed.
        """
        default = cls()
        return cls(
            largest_body=int(_positive(environ, "ASSAY_LARGEST_BODY", default.largest_body)),
            largest_import=int(_positive(environ, "ASSAY_LARGEST_IMPORT", default.largest_import)),
            most_tests=int(_positive(environ, "ASSAY_MOST_TESTS", default.most_tests)),
            failed_logins=_text(environ, "ASSAY_FAILED_LOGINS") or default.failed_logins,
            requests=_text(environ, "ASSAY_REQUESTS_PER_TOKEN") or default.requests,
            limits_storage=_text(environ, "ASSAY_LIMITS_STORAGE") or default.limits_storage,
            identity_provider=_identity_provider(environ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Assay's own settings; those of databases and brokers are Tenantry's.

    Attributes:
        endpoints: which may be called.
        runs: when they are helped.
        api: how much it takes, and from whom.
        task_time_limit: seconds after which a task's process is ended.
        task_delivered_within: seconds after which a task that has not begun counts as undelivered.
        pool_patience: seconds after which a worker ends whose pool takes no tasks.
    """

    endpoints: EndpointPolicy = field(default_factory=EndpointPolicy)
    runs: RunPolicy = field(default_factory=RunPolicy)
    api: ApiPolicy = field(default_factory=ApiPolicy)
    task_time_limit: float = LONGEST_ENDPOINT_TIMEOUT + 60
    task_delivered_within: float = 900
    pool_patience: float = 30

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings; with no argument, from `.env` and then from the process.

        Raises:
            ConfigurationError: a value is malformed.
        """
        if environ is None:
            file = dotenv_values(find_dotenv(usecwd=True))
            environ = {k: v for k, v in file.items() if v is not None} | dict(os.environ)
        default = RunPolicy()
        return cls(
            endpoints=EndpointPolicy(
                http_hosts=frozenset(
                    host.lower() for host in _items(environ.get("ASSAY_HTTP_HOSTS", ""))
                ),
                networks=tuple(
                    _network(text) for text in _items(environ.get("ASSAY_ALLOWED_NETWORKS", ""))
                ),
                longest_answer=int(_positive(environ, "ASSAY_LONGEST_ANSWER", _LONGEST_ANSWER)),
            ),
            runs=RunPolicy(
                stalled_after=_positive(environ, "ASSAY_RUN_STALLED_AFTER", default.stalled_after),
                given_up_after=_positive(
                    environ, "ASSAY_RUN_GIVEN_UP_AFTER", default.given_up_after
                ),
                swept_every=_positive(environ, "ASSAY_RUNS_SWEPT_EVERY", default.swept_every),
            ),
            api=ApiPolicy.from_environment(environ),
            task_delivered_within=_positive(environ, "ASSAY_TASK_DELIVERED_WITHIN", 900),
            pool_patience=_positive(environ, "ASSAY_POOL_PATIENCE", 30),
            task_time_limit=_positive(
                environ, "ASSAY_TASK_TIME_LIMIT", LONGEST_ENDPOINT_TIMEOUT + 60
            ),
        )


def _identity_provider(environ: Mapping[str, str]) -> IdentityProvider | None:
    issuer = _text(environ, "ASSAY_JWT_ISSUER")
    if issuer is None:
        return None
    audience = _text(environ, "ASSAY_JWT_AUDIENCE")
    if audience is None:
        raise ConfigurationError(
            "ASSAY_JWT_ISSUER is set, and ASSAY_JWT_AUDIENCE is not: without it, tokens for other "
            "services of the same provider would be believed"
        )
    return IdentityProvider(
        issuer=issuer,
        audience=audience,
        key=_text(environ, "ASSAY_JWT_KEY"),
        jwks_url=_text(environ, "ASSAY_JWT_JWKS_URL"),
        algorithms=tuple(_items(environ.get("ASSAY_JWT_ALGORITHMS", "RS256"))),
        organization_claim=_text(environ, "ASSAY_JWT_ORGANIZATION_CLAIM") or "organization_id",
        user_claim=_text(environ, "ASSAY_JWT_USER_CLAIM") or "sub",
    )


def _text(environ: Mapping[str, str], name: str) -> str | None:
    return environ.get(name, "").strip() or None


def _items(text: str) -> list[str]:
    return [item for item in text.replace(",", " ").split() if item]


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ConfigurationError(
            f"ASSAY_ALLOWED_NETWORKS: {error}; write networks such as 10.1.0.0/16, fd00::/8 or "
            "127.0.0.1/32"
        ) from error


def _positive(environ: Mapping[str, str], name: str, default: float) -> float:
    text = environ.get(name, "").strip()
    if not text:
        return default
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number < float("inf"):
        raise ConfigurationError(f"{name} is {text!r}: it must be a number greater than 0")
    return number

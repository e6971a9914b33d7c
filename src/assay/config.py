"""What the environment says about running tests: time, patience, and which hosts may be called."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Self

from dotenv import dotenv_values, find_dotenv

from tenantry import ConfigurationError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LONGEST_ANSWER: Final = 256 * 1024

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
class Settings:
    """Assay's own settings; those of databases and brokers are Tenantry's.

    Attributes:
        endpoints: which may be called.
        runs: when they are helped.
        task_time_limit: seconds after which a task's process is ended.
        task_delivered_within: seconds after which a task that has not begun counts as undelivered.
        pool_patience: seconds after which a worker ends whose pool takes no tasks.
    """

    endpoints: EndpointPolicy = field(default_factory=EndpointPolicy)
    runs: RunPolicy = field(default_factory=RunPolicy)
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
            task_delivered_within=_positive(environ, "ASSAY_TASK_DELIVERED_WITHIN", 900),
            pool_patience=_positive(environ, "ASSAY_POOL_PATIENCE", 30),
            task_time_limit=_positive(
                environ, "ASSAY_TASK_TIME_LIMIT", LONGEST_ENDPOINT_TIMEOUT + 60
            ),
        )


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

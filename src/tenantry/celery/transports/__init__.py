"""Brokers whose worker no message brings down, under the names that URLs give them.

kombu's own transports let what is no message of Celery's end the worker, which may be anything that
somebody has put into the table or the list.
"""

from typing import Final

from kombu.transport import TRANSPORT_ALIASES

_ALIASES: Final = {
    "sqla": "database:Transport",
    "sqlalchemy": "database:Transport",
    "redis": "redis:Transport",
    "rediss": "redis:Transport",
    "sentinel": "redis:SentinelTransport",
}


def install_transports() -> None:
    """Have broker URLs of PostgreSQL and Redis mean these transports, in this process."""
    for alias, transport in _ALIASES.items():
        TRANSPORT_ALIASES[alias] = f"{__name__}.{transport}"

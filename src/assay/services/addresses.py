"""Which addresses may be connected to, and a connection to exactly the address that was checked."""

import ipaddress
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any, Final

import httpcore

from assay.config import EndpointPolicy, Network
from assay.exceptions import RefusedEndpointError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Azure serves its instances' metadata and certificates from this one, which is a public address.
_METADATA: Final = frozenset({ipaddress.ip_address("168.63.129.16")})

# RFC 6052: the last 32 bits are an IPv4 address, which a gateway connects to.
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")

# RFC 8215: the same for a site's own use; older Pythons take it for public.
_TRANSLATED_LOCALLY: Final = ipaddress.IPv6Network("64:ff9b:1::/48")


def is_allowed(address: Address, networks: Iterable[Network] = ()) -> bool:
    """Return whether the address is public, and so is every IPv4 address inside it.

    Private, loopback, link-local (where clouds serve an instance's credentials), multicast and
    reserved addresses are not, unless one of the networks holds them.

    Source: IANA special-purpose address registries, as `ipaddress` has them; OWASP, Server-Side
    Request Forgery Prevention Cheat Sheet.
    """
    inner = _embedded(address)
    if inner is not None:
        return is_allowed(inner, networks)
    if any(address in network for network in networks):
        return True
    return (
        address.is_global
        and address not in _TRANSLATED_LOCALLY
        and not address.is_multicast
        and not address.is_reserved
        and address not in _METADATA
    )


def checked_addresses(host: str, port: int, policy: EndpointPolicy) -> list[Address]:
    """Resolve a host, once, and return those of its addresses that may be connected to.

    Raises:
        RefusedEndpointError: none may be.
        OSError: the name is not resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(ipaddress.ip_address(sockaddr[0]) for *_, sockaddr in found))
    allowed = [address for address in addresses if is_allowed(address, policy.networks)]
    if not allowed:
        raise RefusedEndpointError(
            f"host {host!r} resolves to {', '.join(map(str, addresses))}, which is no public "
            "address: an operator allows a private network in ASSAY_ALLOWED_NETWORKS"
        )
    return allowed


class CheckedBackend(httpcore.NetworkBackend):
    """Connects to checked addresses only, and lets nothing last beyond the deadline.

    The name is resolved where the connection is made: there is no second look-up that could
    answer otherwise than the one that was checked.
    """

    def __init__(self, policy: EndpointPolicy, *, deadline: float) -> None:
        """Keep the policy; the deadline is one of `time.monotonic()`."""
        self._policy = policy
        self._deadline = deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline is what counts
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first of the host's allowed addresses that answers."""
        try:
            addresses = checked_addresses(host, port, self._policy)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"host {host!r} cannot be resolved: {error}") from error
        failure: Exception | None = None
        for address in addresses:
            try:
                stream = self._sockets.connect_tcp(
                    str(address),
                    port,
                    remaining(self._deadline),
                    local_address,
                    socket_options,
                )
            except httpcore.ConnectError as error:
                failure = error
            else:
                return _BoundedStream(stream, self._deadline)
        raise httpcore.ConnectError(str(failure)) from failure


class _BoundedStream(httpcore.NetworkStream):
    """A connection whose every operation ends with the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002
        return self._stream.read(max_bytes, remaining(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002
        self._stream.write(buffer, remaining(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, remaining(self._deadline))
        return _BoundedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def remaining(deadline: float) -> float:
    """Return the seconds until the deadline.

    Raises:
        httpcore.ReadTimeout: it has passed.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the time is over")
    return left


def _embedded(address: Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a packet to this one ends up at, if it is one."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _TRANSLATED:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)

"""Addresses that Assay does not connect to, however they are written."""

import ipaddress

import pytest

from assay.services.addresses import is_allowed


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",  # noqa: S104 - an address to be refused
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:0:0:0:0:80ff:fffe",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
    ],
)
def test_address_that_is_not_public_is_refused(address: str) -> None:
    """Loopback, private, link-local, metadata, and each of them inside an IPv6 address."""
    assert not is_allowed(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822"])
def test_public_address_is_allowed(address: str) -> None:
    """What the internet routes may be called."""
    assert is_allowed(ipaddress.ip_address(address))


def test_private_address_is_allowed_by_its_network() -> None:
    """An operator's network opens its own addresses, and no others."""
    networks = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")]
    assert is_allowed(ipaddress.ip_address("10.1.2.3"), networks)
    assert is_allowed(ipaddress.ip_address("::ffff:10.1.2.3"), networks)
    assert is_allowed(ipaddress.ip_address("fd00:1::5"), networks)
    assert not is_allowed(ipaddress.ip_address("10.2.0.1"), networks)
    assert not is_allowed(ipaddress.ip_address("127.0.0.1"), networks)

"""Determine which client an address belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network

HOST_BITS = 64


@lru_cache(maxsize=1024)
def client_of(address: str) -> str:
    """Return the key of the client at this address: an IPv4 address, or an IPv6 network of 64 bits.

    A single IPv6 host has a network of 64 bits, and therefore more addresses than could be counted.

    Example:
        >>> client_of("2001:db8::1") == client_of("2001:db8::ffff")
        True
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ip_network((int(parsed), HOST_BITS), strict=False))


class Networks:
    """A set of addresses and networks, tested with ``in``."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ip_network(each) for each in networks]

    def __contains__(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._networks)

"""What of a client's address is counted as one: whoever has an IPv6 network has all the addresses in it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_network

from app.wire.ip import plain_address

#: Bits of an IPv6 address that are given to one site at least (RFC 6177, RFC 4291 section 2.5.4).
PREFIX = 64


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """An IPv4 address itself, the /64 of an IPv6 address; what is no address stays as it is."""
    found = plain_address(address)
    if found is None:
        return address
    return str(ip_network((int(found), PREFIX), strict=False) if isinstance(found, IPv6Address) else found)

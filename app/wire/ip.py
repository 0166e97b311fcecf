"""Addresses as text: one value for each, however a socket or a proxy writes it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address


def plain_address(text: str) -> Address | None:
    """The address a text is, None where it is none; an IPv4 address as a socket for both families tells it is IPv4."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address

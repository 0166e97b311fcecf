"""Who is behind a reverse proxy: X-Forwarded-For, X-Forwarded-Proto and Forwarded (RFC 7239). No I/O, no state.

Anybody can write these headers. They count only where the TCP peer is a proxy that is trusted, and are read from the
right, where that proxy has written: what stands left of the first address that is no trusted proxy is the client's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import islice
from typing import NamedTuple, Self

from app.wire.ip import Address, plain_address

Network = IPv4Network | IPv6Network
Headers = Sequence[tuple[bytes, bytes]]

#: Entries (count) of one list that are looked at: chains of proxies are short.
MAX_ENTRIES = 32
#: Characters of a list that are looked at, from its end: more than so many entries take.
MAX_LIST = 8192
#: Characters of an address with brackets and port; more is none.
_MAX_ADDRESS = 64
#: Bits of the prefix under which IPv6 has the addresses of IPv4 (RFC 4291 section 2.5.5.2).
_MAPPED_BITS = 96


class Seen(NamedTuple):
    """The address of the client, and the scheme it used; None where nobody who is trusted has said one."""

    address: str
    scheme: str | None


@dataclass(frozen=True, slots=True)
class Proxies:
    """Addresses and networks whose word counts; IPv4 addresses written as IPv6 ones are the same addresses."""

    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """From the settings, which have been checked; raises ValueError for what is no network."""
        return cls(tuple(_plain_network(ip_network(text, strict=False)) for text in texts))

    def trusts(self, peer: str) -> bool:
        """Whether this TCP peer is one of them."""
        if not self.networks:
            return False
        address = read_address(peer.partition("%")[0])  # a link-local peer has the interface behind it
        return address is not None and address in self

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self.networks)

    def look_through(self, peer: str, headers: Headers) -> Seen:
        """What the trusted proxy `peer` says in `headers` (lower-case names) of who is behind it."""
        chain = _joined(headers, b"x-forwarded-for")
        scheme = _scheme(next(_from_the_right(_joined(headers, b"x-forwarded-proto"))))
        if chain:
            return Seen(self._first_stranger(peer, _from_the_right(chain)), scheme)
        elements = [_parameters(text) for text in islice(_from_the_right(_joined(headers, b"forwarded")), MAX_ENTRIES)]
        address = self._first_stranger(peer, (one.get("for", "") for one in elements))
        return Seen(address, scheme or _scheme(elements[0].get("proto", "")))

    def _first_stranger(self, peer: str, entries: Iterator[str]) -> str:
        """The nearest address that is no trusted proxy; where something else comes before it, the last that was one."""
        found = peer
        for text in islice(entries, MAX_ENTRIES):
            address = read_address(text)
            if address is None:
                break
            found = str(address)
            if address not in self:
                break
        return found


def read_address(text: str) -> Address | None:
    """An address, also in brackets or with a port, as proxies write them; None for anything else.

    What IPv6 calls a zone is refused: it may hold any text, and names an interface of some other machine.
    """
    if len(text) > _MAX_ADDRESS or "%" in text:
        return None
    host, port = text, ""
    if text.startswith("["):
        host, closed, port = text[1:].partition("]")
        if not closed or (port and not port.startswith(":")):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port.removeprefix(":") and not (port.removeprefix(":").isdecimal() and port.isascii()):
        return None
    return plain_address(host)


def _plain_network(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= _MAPPED_BITS:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))
    return network


def _joined(headers: Headers, name: bytes) -> str:
    """Several lines of one name are one list (RFC 9110 section 5.3)."""
    found = ",".join(value.decode("latin-1") for key, value in headers if key == name)
    return found if len(found) <= MAX_LIST else found[-MAX_LIST:].partition(",")[2]


def _from_the_right(text: str) -> Iterator[str]:
    """The entries of a list, the last one first; at least one, which may be empty. A comma in quotes separates none.

    Quotes are counted from the right as well: an open one that a client sends cannot swallow what a proxy adds.
    """
    end, quoted = len(text), False
    for at in range(len(text) - 1, -1, -1):
        if text[at] == '"':
            quoted = not quoted
        elif text[at] == "," and not quoted:
            yield text[at + 1 : end].strip()
            end = at
    yield text[:end].strip()


def _parameters(element: str) -> dict[str, str]:
    """The pairs of one element of Forwarded; neither an address nor a scheme needs an escape within its quotes."""
    pairs = (pair.strip().partition("=") for pair in element.split(";"))
    return {name.lower(): value.removeprefix('"').removesuffix('"') for name, _, value in pairs}


def _scheme(text: str) -> str | None:
    found = text.lower()
    return found if found in {"http", "https"} else None

"""From configured names to the addresses to try, anew at each attempt: an alias may have moved."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby

from app.connectors.stomp.resolver import getaddrinfo
from app.domain.link import LinkFailed, LinkFault


@dataclass(frozen=True, slots=True)
class Address:
    """One address to connect to; `name` is what the certificate must say."""

    name: str
    ip: str
    port: int

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.ip

    def __str__(self) -> str:
        host = f"[{self.ip}]" if self.is_ipv6 else self.ip
        return f"{host}:{self.port}"


async def lookup(name: str, port: int) -> list[Address]:
    """The addresses of a name, IPv6 first; the caller sets the deadline. Raises OSError, UnicodeError."""
    with contextlib.suppress(ValueError):
        return [Address(name, str(ip_address(name)), port)]
    infos = await getaddrinfo(name, port)
    random.shuffle(infos)
    infos.sort(key=lambda info: info[0] != socket.AF_INET6)
    return [Address(name, str(info[4][0]), port) for info in infos]


async def resolve(hosts: Sequence[tuple[str, int]], seconds: float) -> list[Address]:
    """All addresses of all names, in the order of the names, IPv6 first, shuffled within a family as DIRAC does.

    Raises LinkFailed(DNS) when no name resolves within so many seconds.
    """
    found, failures = await look_up(hosts, seconds)
    if not found:
        raise LinkFailed(LinkFault.DNS, "; ".join(f"{name}: {why}" for name, why in failures.items()))
    return found


async def look_up(hosts: Sequence[tuple[str, int]], seconds: float) -> tuple[list[Address], dict[str, str]]:
    """What `resolve` gives, and the names that do not resolve, each with the reason: one that hangs delays only."""
    answers = await asyncio.gather(*(_answer(name, port, seconds) for name, port in hosts))
    found = [address for answer in answers if isinstance(answer, list) for address in answer]
    names = [name for name, _ in hosts]
    return found, {name: answer for name, answer in zip(names, answers, strict=True) if isinstance(answer, str)}


async def _answer(name: str, port: int, seconds: float) -> list[Address] | str:
    """Its addresses, or why there are none."""
    try:
        async with asyncio.timeout(seconds):
            return await lookup(name, port)
    except TimeoutError:
        return "not resolved in time"
    except OSError as error:
        return error.strerror or str(error)
    except UnicodeError as error:  # a label that is empty or too long never gets to the resolver
        return str(error)


def one_each(addresses: Iterable[Address]) -> list[Address]:
    """One address for each broker: of a name with both families only those of IPv4, as DIRAC does, and none twice.

    A host that has both is one broker; taken for two it would deliver every message of a Topic twice.
    """
    chosen: dict[tuple[str, int], Address] = {}
    for _, of_name in groupby(addresses, key=lambda address: address.name):
        known = list(of_name)
        for address in [each for each in known if not each.is_ipv6] or known:
            chosen.setdefault((address.ip, address.port), address)
    return list(chosen.values())

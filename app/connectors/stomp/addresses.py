"""From configured names to the addresses to try, anew at each attempt: an alias may have moved."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

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


class Resolver:
    """Looks names up for one link. A lookup that hangs holds a thread of the loop's few: there is one per name."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def lookup(self, name: str, port: int) -> list[Address]:
        """The addresses of a name; joins the lookup that an earlier attempt gave up waiting for."""
        task = self._running.get((name, port))
        if task is None:
            task = self._running[name, port] = asyncio.get_running_loop().create_task(_lookup(name, port))
            task.add_done_callback(lambda done: self._finished((name, port), done))
        return await asyncio.shield(task)

    def _finished(self, key: tuple[str, int], task: asyncio.Task[list[Address]]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

    def close(self) -> None:
        """At the end of the link."""
        for task in self._running.values():
            task.cancel()


async def resolve(hosts: Sequence[tuple[str, int]], seconds: float, resolver: Resolver | None = None) -> list[Address]:
    """All addresses of all names, in the order of the names, IPv6 first, shuffled within a family as DIRAC does.

    Raises LinkFailed(DNS) when no name resolves within so many seconds.
    """
    found, failures = await look_up(hosts, seconds, resolver or Resolver())
    if not found:
        raise LinkFailed(LinkFault.DNS, "; ".join(f"{name}: {why}" for name, why in failures.items()))
    return found


async def look_up(
    hosts: Sequence[tuple[str, int]], seconds: float, resolver: Resolver
) -> tuple[list[Address], dict[str, str]]:
    """What `resolve` gives, and the names that do not resolve, each with the reason: one that hangs delays only."""
    answers = await asyncio.gather(*(_answer(name, port, seconds, resolver) for name, port in hosts))
    found = [address for answer in answers if isinstance(answer, list) for address in answer]
    names = [name for name, _ in hosts]
    return found, {name: answer for name, answer in zip(names, answers, strict=True) if isinstance(answer, str)}


async def _answer(name: str, port: int, seconds: float, resolver: Resolver) -> list[Address] | str:
    """Its addresses, or why there are none."""
    try:
        async with asyncio.timeout(seconds):
            return await resolver.lookup(name, port)
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


async def _lookup(name: str, port: int) -> list[Address]:
    # getaddrinfo runs in the loop's thread pool: a hanging resolver costs a thread, not the loop.
    infos = await asyncio.get_running_loop().getaddrinfo(name, port, type=socket.SOCK_STREAM)
    random.shuffle(infos)
    infos.sort(key=lambda info: info[0] != socket.AF_INET6)
    return [Address(name, str(info[4][0]), port) for info in infos]

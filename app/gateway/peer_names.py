"""The addresses behind the names of peers, as they were when they could last be looked up."""

from __future__ import annotations

import asyncio
import logging
from ipaddress import ip_address

from app.connectors.stomp.addresses import Address, lookup

logger = logging.getLogger("mq_gateway.peers")

#: Seconds a name's lookup is waited for.
LOOKUP_SECONDS = 2.0
#: Lookups (count) at the same time. One that hangs holds a thread, and those are for the names of brokers, too.
MAX_LOOKUPS = 8


class PeerNames:
    """Looks names up, each once at a time: who comes while a lookup hangs joins it."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(MAX_LOOKUPS)
        self._running: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}
        self._known: dict[tuple[str, int], list[Address]] = {}

    def forget(self) -> None:
        """Other names are configured."""
        self._known.clear()

    def close(self) -> None:
        """Nobody looks any more."""
        for task in self._running.values():
            task.cancel()

    async def addresses(self, name: str, port: int) -> list[Address]:
        """The addresses of the name; where it cannot be looked up now, those it had."""
        try:
            ip_address(name)
        except ValueError:
            await self._look_up(name, port)
            return self._known.get((name, port), [])
        return [Address(name, name, port)]

    async def _look_up(self, name: str, port: int) -> None:
        task = self._running.get((name, port))
        if task is None:
            task = self._running[name, port] = asyncio.get_running_loop().create_task(self._resolve(name, port))
            task.add_done_callback(lambda done: self._ended((name, port), done))
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                await asyncio.shield(task)
        except (OSError, UnicodeError) as error:  # a TimeoutError is an OSError
            logger.warning("peer %s: its name cannot be looked up: %s", name, str(error) or "no answer in time")

    async def _resolve(self, name: str, port: int) -> list[Address]:
        async with self._places:
            found = await lookup(name, port)
        self._known[name, port] = found
        return found

    def _ended(self, key: tuple[str, int], task: asyncio.Task[list[Address]]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # whoever waited has it; nobody may have

"""Names of peers: what hangs is bounded, and what was known stays."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest

from app.connectors.stomp.addresses import Address
from app.gateway import peer_names as module
from app.gateway.peer_names import MAX_LOOKUPS, PeerNames


class Dns:
    """What names stand for; one that is not there hangs, one for None does not exist."""

    def __init__(self) -> None:
        self.names: dict[str, str | None] = {}
        self.asked: list[str] = []
        self.running = 0
        self.peak = 0
        self.peers = PeerNames()

    async def lookup(self, name: str, port: int) -> list[Address]:
        self.asked.append(name)
        self.running += 1
        self.peak = max(self.peak, self.running)
        try:
            while name not in self.names:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        finally:
            self.running -= 1
        ip = self.names[name]
        if ip is None:
            raise OSError("no such name")
        return [Address(name, ip, port)]

    async def ips(self, name: str) -> list[str]:
        return [address.ip for address in await self.peers.addresses(name, 1)]


@pytest.fixture
async def dns(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Dns]:
    made = Dns()

    monkeypatch.setattr(module, "lookup", made.lookup)
    monkeypatch.setattr(module, "LOOKUP_SECONDS", 0.02)
    yield made
    made.peers.close()
    await asyncio.sleep(0.01)
    assert made.running == 0


async def test_names_that_hang_take_their_share_of_threads_and_no_more(dns: Dns) -> None:
    hang = [f"hangs-{number}" for number in range(9)]
    assert await asyncio.gather(*(dns.ips(name) for name in hang)) == [[]] * 9
    assert await asyncio.gather(*(dns.ips(name) for name in hang)) == [[]] * 9
    assert dns.peak == len(dns.asked) == MAX_LOOKUPS
    assert await dns.ips("10.0.0.1") == ["10.0.0.1"]
    assert await dns.ips("fd00::1") == ["fd00::1"]
    # What is answered late is known from then on, and the others have their turn.
    dns.names = dict.fromkeys(hang, "10.0.0.7")
    async with asyncio.timeout(5):
        while await dns.ips(hang[-1]) != ["10.0.0.7"]:
            pass
    assert dns.peak == MAX_LOOKUPS


async def test_what_was_known_stays_while_a_name_cannot_be_looked_up(
    dns: Dns, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    dns.names = {"a": "10.0.0.1"}
    assert await dns.ips("a") == ["10.0.0.1"]
    dns.names = {"a": None}
    assert await dns.ips("a") == ["10.0.0.1"]
    assert "peer a: its name cannot be looked up: no such name" in caplog.text
    dns.names = {}
    assert await dns.ips("a") == ["10.0.0.1"]
    assert "no answer in time" in caplog.text
    dns.names = {"a": "10.0.0.2"}
    await asyncio.sleep(0.01)
    assert await dns.ips("a") == ["10.0.0.2"]
    dns.names = {"a": None}
    dns.peers.forget()
    assert await dns.ips("a") == []

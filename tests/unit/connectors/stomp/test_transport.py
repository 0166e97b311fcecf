"""The write deadline: a broker that reads slowly is waited for, one that reads nothing is given up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest

from app.connectors.stomp import transport
from app.connectors.stomp.addresses import Address
from app.connectors.stomp.transport import StompTransport
from app.domain.link import LinkFailed, LinkFault

BACKLOG = 8 << 20
DEADLINE = 0.3


@contextlib.asynccontextmanager
async def connected(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[StompTransport, socket.socket, list[LinkFailed]]]:
    """A transport with more to write than the kernel takes, and the other end of its socket."""
    monkeypatch.setattr(transport, "WRITE_DEADLINE", DEADLINE)
    faults: list[LinkFailed] = []
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        port = listening.getsockname()[1]
        stomp = StompTransport(lambda _frame: None, faults.append)
        await stomp.open(Address("localhost", "127.0.0.1", port), None, None)
        peer, _ = await loop.sock_accept(listening)
        with peer:
            stomp.write(b"\n" * BACKLOG)
            yield stomp, peer, faults
            stomp.abort(LinkFailed(LinkFault.INTERNAL, "the test is over"))
            await asyncio.sleep(0)


async def test_slow_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(monkeypatch) as (stomp, peer, faults):
        loop = asyncio.get_running_loop()
        begun, received = loop.time(), 0
        while received < BACKLOG:
            piece = await loop.sock_recv(peer, 256 << 10)
            assert piece, faults
            received += len(piece)
            await asyncio.sleep(DEADLINE / 10)
        assert loop.time() - begun > 2 * DEADLINE
        assert faults == []
        assert stomp.is_writable


async def test_a_standstill_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async with connected(monkeypatch) as (_, _, faults):
        async with asyncio.timeout(10 * DEADLINE):
            while not faults:  # noqa: ASYNC110 - the callback of the product is what is tested
                await asyncio.sleep(0.01)
        assert faults[0].fault is LinkFault.WRITE_TIMEOUT

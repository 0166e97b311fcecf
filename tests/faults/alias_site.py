"""Brokers behind one name that know nothing of each other, for tests of `consume_from: all`."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Any

from app.connectors.stomp.addresses import Address
from app.domain.link import Connections
from tests.contract.conftest import WAIT
from tests.faults.peer import Connection, Script, ScriptedPeer

if TYPE_CHECKING:
    from tests.faults.conftest import Connect, Subject

ALL = {"consume_from": "all"}
RABBIT = {"version": "1.2", "server": "RabbitMQ/3.10.8", "heart-beat": "0,0"}
ACTIVEMQ = {"version": "1.2", "server": "ActiveMQ/5.17.2", "heart-beat": "0,0"}


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT):
        while not wanted():  # noqa: ASYNC110 - what it waits for tells nobody
            await asyncio.sleep(0.002)


class Names:
    """The resolver: what each name stands for now, and how often it was asked."""

    def __init__(self) -> None:
        self.book: dict[str, list[Address] | OSError] = {}
        self.asked = 0

    def say(self, name: str, *peers: ScriptedPeer) -> None:
        self.book[name] = [Address(name, "127.0.0.1", peer.port) for peer in peers]

    async def lookup(self, name: str, _port: int) -> list[Address]:
        self.asked += 1
        known = self.book.get(name, socket.gaierror(-2, "Name or service not known"))
        if isinstance(known, OSError):
            raise known
        return list(known)

    async def again(self, times: int = 1) -> None:
        """Wait until it was asked so many times more, and the answers were used."""
        enough = self.asked + times + 1
        await until(lambda: self.asked >= enough)


class Site:
    """Brokers behind `alias`, and a connector that consumes from all of them."""

    def __init__(self, it: Subject, names: Names, peers: list[ScriptedPeer]) -> None:
        self.it = it
        self.names = names
        self.peers = peers

    async def all_up(self, number: int | None = None) -> None:
        """So many brokers, and the connection that publishes."""
        wanted = (len(self.peers) if number is None else number) + 1
        await until(lambda: self.it.connector.status.connections == Connections(wanted, wanted))

    async def up(self, number: int) -> None:
        await until(lambda: self.it.connector.status.connections.up == number)

    async def subscribed(self) -> list[tuple[Connection, str]]:
        """At each broker, in their order, the connection and the id of the next SUBSCRIBE."""
        found = []
        for peer in self.peers:
            connection, frame = await peer.frame_from("SUBSCRIBE")
            found.append((connection, frame["id"]))
        return found


def standing(here: Site) -> int:
    """Parts of all subscriptions that their brokers have taken."""
    known = here.it.connector._alias
    assert known is not None
    return sum(part.stands for each in known._spreads for part in each._parts.values())


Open = Callable[..., AbstractAsyncContextManager[Site]]


@contextlib.asynccontextmanager
async def opened(
    subject: Connect, names: Names, brokers: int = 2, *, connected: dict[str, str] | None = None, **settings: Any
) -> AsyncIterator[Site]:
    """A site with so many brokers, all of them up."""
    async with AsyncExitStack() as stack:
        scripts = [Script() if connected is None else Script(connected=connected) for _ in range(brokers)]
        peers = [await stack.enter_async_context(ScriptedPeer.listen(script)) for script in scripts]
        names.say("alias", *peers)
        it = await stack.enter_async_context(subject("alias:61613", **{**ALL, **settings}))
        made = Site(it, names, peers)
        await made.all_up()
        yield made

"""A connection of its own for those who read streams and durable subscriptions at RabbitMQ.

A reader names the queue itself, and where that is not there RabbitMQ ends the connection: it is to be nobody else's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.base import Destination, Listener, Subscription
from app.connectors.stomp.consumers import Consumers
from app.connectors.stomp.declarations import Declarations
from app.connectors.stomp.declaring import NO_QUEUE
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.session import Session
from app.domain.errors import BrokerRejected, Draining
from app.domain.stream import StreamStart


class Reading:
    """The connection is made when somebody reads, and what is read is declared before."""

    def __init__(
        self, service: str, settings: ServiceSettings, link: Link, quarantine: Quarantine, declarations: Declarations
    ) -> None:
        self.consumers = Consumers(service, settings, link, quarantine)
        #: Empty as long as nobody reads.
        self.running: list[asyncio.Task[None]] = []
        self._link = link
        self._is_closed = False
        self._declarations = declarations

    async def subscribe(
        self, destination: Destination, listener: Listener, *, prefetch: int, timeout: float, start: StreamStart | None
    ) -> Subscription:
        """As MQConnector.subscribe; without `start` of a durable subscription."""
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            return await self._subscribe(destination, listener, prefetch, deadline, start)
        except BrokerRejected:  # somebody may have deleted it: it is made anew, once
            self._declarations.forget()
            return await self._subscribe(destination, listener, prefetch, deadline, start)

    async def _subscribe(
        self, destination: Destination, listener: Listener, prefetch: int, deadline: float, start: StreamStart | None
    ) -> Subscription:
        clock = asyncio.get_running_loop().time
        if not self._declarations.is_known(destination):  # the other connection may be down, or not read from
            await self._declarations.session([destination], deadline - clock())
        if self._is_closed:
            raise Draining(f"{self._link.name} takes no new work", retry_after=1)
        if not self.running:
            self.running = [asyncio.create_task(self._link.run(), name=f"link {self._link.name}")]
        return await self.consumers.subscribe(
            destination, listener, acknowledge=True, prefetch=prefetch, timeout=deadline - clock(), start=start
        )

    def close(self) -> list[asyncio.Task[None]]:
        """No new readers; what is to be ended."""
        self._is_closed = True
        return self.running

    def lost(self, session: Session) -> None:
        """The connection is gone, maybe for a queue that is: where the ERROR fits no one request, nobody was told."""
        if NO_QUEUE in (session.blame.last_error or ""):
            self._declarations.forget()
        self.consumers.lost()

    def restore(self, session: Session) -> Coroutine[Any, Any, None]:
        """On a new connection: a broker that has lost its streams has them again, before a reader finds none."""
        return self.consumers.restore(session, self._declarations.until_declared)

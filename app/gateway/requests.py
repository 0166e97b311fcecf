"""Requests with a reply: the request is reserved as a publish, the reply counted for as long as somebody holds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

from app.connectors.base import Destination, MQConnector
from app.domain.errors import NoReply
from app.domain.message import Message, Publication
from app.gateway.budget import Budget
from app.gateway.counters import Counters


class Requests:
    """Of the whole gateway. `on_grew` is told of every byte more or less that is held."""

    def __init__(self, budget: Budget, counters: Counters, on_grew: Callable[[int], None]) -> None:
        #: Bytes of replies that their callers have not let go.
        self.buffered = 0
        self._ends: set[asyncio.Timeout] = set()
        self._budget = budget
        self._counters = counters
        self._on_grew = on_grew

    @asynccontextmanager
    async def ask(
        self, connector: MQConnector, destination: Destination, publication: Publication, timeout: float
    ) -> AsyncIterator[Message]:
        """The reply, with the caller's own correlation id where there is one; raises as MQConnector.request."""
        with self._budget.reserve(destination.uri.service, publication.size):
            try:
                reply = await self._reply(connector, destination, publication, timeout)
            except NoReply:
                self._counters.used(destination.uri).published += 1
                raise
        self._counters.used(destination.uri).published += 1
        with self._holding(reply.size):
            yield _returned(reply, publication.correlation_id)

    async def _reply(
        self, connector: MQConnector, destination: Destination, publication: Publication, timeout: float
    ) -> Message:
        try:
            async with asyncio.timeout(None) as end:
                self._ends.add(end)
                try:
                    return await connector.request(destination, publication, timeout=timeout)
                finally:
                    self._ends.discard(end)
                    del end  # it knows the task, the task its error, and an error this frame
        except TimeoutError as given_up:
            given_up.__traceback__ = None  # it would hold the request until cycles are collected
            raise NoReply("the gateway is shutting down, and no reply has come") from None

    def give_up(self) -> None:
        """End every wait for a reply now: the last moment in which it can be told."""
        now = asyncio.get_running_loop().time()
        for end in self._ends:
            end.reschedule(now)

    @contextmanager
    def _holding(self, size: int) -> Iterator[None]:
        # Never refused: it has come, and nobody would send it again. Rings give way to it.
        self.buffered += size
        self._on_grew(size)
        try:
            yield
        finally:
            self.buffered -= size
            self._on_grew(-size)


def _returned(reply: Message, own: str | None) -> Message:
    return reply if own is None else replace(reply, headers={**reply.headers, "correlation-id": own})

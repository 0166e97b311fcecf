"""Streams behind Topics, declared and bound before the first publish: RabbitMQ confirms what no queue takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from typing import Any

from app.connectors.base import Delivery, Destination, Subscription
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.returns import Returns
from app.connectors.stomp.session import Session
from app.connectors.stomp.stream_cursor import StreamCursor
from app.connectors.stomp.subscription import StompSubscription
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConnectionLost, GatewayError, NotSupportedByBroker
from app.domain.stream import NEXT

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds for one declaration and the end of its subscription.
DEADLINE = 10.0
#: Seconds for which a stream rests that the broker refused: asking again ends the connection that all share.
REST_SECONDS = 300.0


class Declarations:
    """On the connection that publishes. One after the other: the quarantine is to know which one ended it."""

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._session: Session | None = None
        self._returns: Returns | None = None
        self._turn = asyncio.Lock()
        self._made: dict[str, asyncio.Task[None]] = {}
        #: Until when, in the loop's time, and why.
        self._resting: dict[str, tuple[float, str]] = {}
        self._chores: set[asyncio.Task[None]] = set()

    def up(self, session: Session, returns: Returns | None) -> None:
        """A new connection, on which nothing was declared yet."""
        self._session, self._returns = session, returns
        self._made = {}

    async def declare(self, destinations: Iterable[Destination]) -> None:
        """All of these; what is refused is logged, and refused again to whoever wants it."""
        session = self._session
        if session is None or not session.dialect.has_streams:
            return
        for destination in destinations:
            try:
                await self._standing(session, destination)
            except GatewayError as error:
                logger.warning("%s: no stream: %s", destination.uri, error)

    def forget_refusals(self) -> None:
        """The configuration is another one: what was refused may be taken now."""
        self._resting.clear()

    async def session(self, link: Link, destination: Destination, timeout: float) -> Session:
        """The session to publish with, once the stream stands; raises BrokerUnavailable: nothing was sent."""
        present = link.current
        if present is not None and self._stands(present, destination):
            return present  # nearly always
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    session = link.current or await link.session(deadline - asyncio.get_running_loop().time())
                    await self._standing(session, destination)
                    if session.takes_work:
                        return session
        except TimeoutError:
            raise BrokerUnavailable(
                f"the stream behind {destination.uri} was not declared in time", retry_after=1
            ) from None

    def refuse(self, session: Session, destination: Destination) -> None:
        """Raises NotSupportedByBroker; BrokerUnavailable, DestinationQuarantined for a stream that rests."""
        if not session.dialect.has_streams:
            broker = session.dialect.server or "this broker"
            raise NotSupportedByBroker(f"{destination.uri} has `replay: stream`, which {broker} cannot do")
        path = session.dialect.path(destination)
        self._quarantine.refuse(path)
        until, why = self._resting.get(path, (0.0, ""))
        left = until - asyncio.get_running_loop().time()
        if left > 0:
            raise BrokerUnavailable(f"the stream behind {destination.uri} was refused: {why}", retry_after=left)

    def _stands(self, session: Session, destination: Destination) -> bool:
        made = self._made.get(session.dialect.path(destination)) if session is self._session else None
        return made is not None and made.done() and not made.cancelled() and made.exception() is None

    async def _standing(self, session: Session, destination: Destination) -> None:
        self.refuse(session, destination)
        path = session.dialect.path(destination)
        made = self._made.get(path)
        if made is None or (made.done() and not self._stands(session, destination)):
            made = self._made[path] = asyncio.get_running_loop().create_task(self._declare(session, destination, path))
            made.add_done_callback(_retrieve)
        await asyncio.shield(made)

    async def _declare(self, session: Session, destination: Destination, path: str) -> None:
        async with self._turn:
            listener = _Listener()
            subscription = self._subscription(destination, listener)
            try:
                async with asyncio.timeout(DEADLINE):
                    await subscription.establish(session, self._returns)
            except TimeoutError:
                await subscription.close(0)
                raise BrokerUnavailable("the broker does not confirm its declaration", retry_after=1) from None
            except BrokerRejected as error:
                self._resting[path] = (asyncio.get_running_loop().time() + REST_SECONDS, str(error))
                raise BrokerUnavailable(str(error), retry_after=REST_SECONDS) from None
            except ConnectionLost as error:
                raise BrokerUnavailable(f"the link was lost: {error}", retry_after=1) from None
            listener.attach(subscription)
            await subscription.close(DEADLINE)

    def _subscription(self, destination: Destination, listener: _Listener) -> StompSubscription:
        return StompSubscription(
            destination,
            listener,
            acknowledge=True,
            prefetch=1,
            cursor=StreamCursor(NEXT),
            on_end=lambda _subscription: None,
            spawn=self._chore,
        )

    def _chore(self, work: Any) -> asyncio.Task[None]:  # noqa: ANN401 - a coroutine
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task


class _Listener:
    """Wants nothing of what comes while the stream is declared; it stays in the stream."""

    def __init__(self) -> None:
        self._subscription: Subscription | None = None
        self._early: list[Delivery] = []

    def attach(self, subscription: Subscription) -> None:
        self._subscription = subscription
        for delivery in self._early:
            subscription.ack(delivery)

    def on_message(self, delivery: Delivery) -> None:
        if self._subscription is None:
            self._early.append(delivery)
        else:
            self._subscription.ack(delivery)

    def on_lost(self) -> None:
        """The next connection declares anew."""

    def on_restored(self) -> None:
        """It never is."""

    def on_withdrawn(self, token: str) -> None:
        """Nothing waits that long."""

    def on_cancelled(self, detail: str) -> None:
        logger.warning("a stream was deleted while it was declared: %s", detail)


def _retrieve(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits has it too; nobody may be waiting

"""Streams behind Topics, declared and bound before the first publish: RabbitMQ confirms what no queue takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from stomp import constants as stomp

from app.connectors.base import Destination
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.route import Route
from app.connectors.stomp.session import Session
from app.connectors.stomp.stream_frames import declaring_headers, declaring_path, stream_name
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConnectionLost, GatewayError, NotSupportedByBroker

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds for one declaration.
DEADLINE = 10.0
#: Seconds for which a stream rests that the broker refused: asking again ends the connection that all share.
REST_SECONDS = 300.0


class Declarations:
    """On `link`, the connection that publishes. One after the other: the quarantine is to know which one ended it."""

    def __init__(self, link: Link, quarantine: Quarantine, topics: Callable[[], Iterable[Destination]]) -> None:
        self._link = link
        self._quarantine = quarantine
        #: Those with a stream, as the configuration says now.
        self._topics = topics
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        self._made: dict[str, asyncio.Task[None]] = {}
        #: Until when, in the loop's time, and why.
        self._resting: dict[str, tuple[float, str]] = {}

    def up(self, session: Session) -> None:
        """A new connection, on which nothing was declared yet."""
        self._session, self._made = session, {}

    def forget(self) -> None:
        """A stream is gone: each is declared again before it is used again."""
        self._made = {path: made for path, made in self._made.items() if not made.done()}

    async def until_declared(self) -> None:
        """Returns when `declare` is done, or there is no connection in time."""
        with contextlib.suppress(GatewayError):
            await self._link.session(DEADLINE)
        await self.declare()

    async def declare(self) -> None:
        """All of them; what is refused is logged, and refused again to whoever wants it."""
        session = self._session
        if session is None or not session.dialect.has_streams:
            return
        for destination in self._topics():
            try:
                await self._standing(session, destination)
            except GatewayError as error:
                logger.warning("%s: no stream: %s", destination.uri, error)

    def forget_refusals(self) -> None:
        """The configuration is another one: what was refused may be taken now."""
        self._resting.clear()

    async def session(self, destination: Destination, timeout: float) -> Session:
        """The session to publish with, once the stream stands; raises BrokerUnavailable: nothing was sent."""
        present = self._link.current
        if present is not None and self._stands(present, destination):
            return present  # nearly always
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    session = self._link.current or await self._link.session(
                        deadline - asyncio.get_running_loop().time()
                    )
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
        for suspect in (path, declaring_path(session.dialect, destination)):
            self._quarantine.refuse(suspect)
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
            try:
                async with asyncio.timeout(DEADLINE):
                    # The first where the second could fail for a stream that cannot be read: that would delete it.
                    await _subscribe(session, declaring_path(session.dialect, destination), destination, {})
                    await _subscribe(session, path, destination, {"x-queue-name": stream_name(destination)})
            except TimeoutError:
                raise BrokerUnavailable("the broker does not confirm its declaration", retry_after=1) from None
            except BrokerRejected as error:
                self._resting[path] = (asyncio.get_running_loop().time() + REST_SECONDS, str(error))
                raise BrokerUnavailable(str(error), retry_after=REST_SECONDS) from None
            except ConnectionLost as error:
                raise BrokerUnavailable(f"the link was lost: {error}", retry_after=1) from None


async def _subscribe(session: Session, path: str, destination: Destination, headers: dict[str, str]) -> None:
    """SUBSCRIBE and UNSUBSCRIBE: what stays is the stream, and what binds it."""
    route = Route(
        path,
        True,
        lambda frame: session.ack(frame.headers.get(stomp.HDR_ACK, "")),  # nothing comes; it would hold credit
        lambda detail: logger.warning("%s: a stream was deleted while it was declared: %s", destination.uri, detail),
        stream_name(destination),
    )
    subscription, pending = session.subscribe(route, declaring_headers(destination) | headers)
    try:
        await pending.future
    except asyncio.CancelledError:
        if session.is_open:
            session.unsubscribe(subscription).future.add_done_callback(_retrieve)
        raise
    finally:
        session.forget(pending)
        session.drop_route(subscription)
    await session.unsubscribe(subscription).future


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # whoever waits has it too; nobody may be waiting

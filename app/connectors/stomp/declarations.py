"""Streams behind Topics, declared and bound before the first publish: RabbitMQ confirms what no queue takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable

from stomp import constants as stomp

from app.connectors.base import Destination
from app.connectors.stomp.dialect import Dialect
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
#: STOMP destination of a Topic, and name of its stream.
_Key = tuple[str, str]


class Declarations:
    """On `link`, the connection that publishes. One after the other: the quarantine is to know which one ended it."""

    def __init__(self, link: Link, quarantine: Quarantine, topics: Callable[[], Iterable[Destination]]) -> None:
        self._link = link
        self._quarantine = quarantine
        #: Those with a stream, as the configuration says now.
        self._topics = topics
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        #: On the present connection, by the Topic's STOMP destination and the name of its stream.
        self._made: dict[_Key, asyncio.Task[None]] = {}
        #: Those that stood on any connection, and of which nobody heard that they are gone.
        self._known: set[_Key] = set()
        #: Until when, in the loop's time, and why.
        self._resting: dict[_Key, tuple[float, str]] = {}

    def up(self, session: Session) -> None:
        """A new connection, on which nothing was declared yet."""
        self._session, self._made = session, {}

    def forget(self) -> None:
        """A stream is gone: each is declared again before it is used again."""
        self._made, self._known = {}, set()

    async def until_declared(self) -> None:
        """Returns when `declare` is done, or there is no connection in time."""
        with contextlib.suppress(TimeoutError, GatewayError):
            async with asyncio.timeout(DEADLINE):
                await self._link.session(DEADLINE)
                await self.declare()

    async def declare(self) -> None:
        """All of them; what is refused is logged, and refused again to whoever wants it."""
        session = self._session
        if session is None or not session.dialect.has_streams:
            return
        for destination in self._topics():
            if session is not self._session:
                return
            try:
                await self._standing(session, destination)
            except GatewayError as error:
                logger.warning("%s: no stream: %s", destination.uri, error)

    def forget_refusals(self) -> None:
        """The configuration is another one: what was refused may be taken now."""
        self._resting.clear()

    def is_known(self, destination: Destination) -> bool:
        """Whether the stream stood, and nothing was heard since."""
        session = self._session
        return session is not None and _key(session, destination) in self._known

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
        for path in paths(session.dialect, destination):
            self._quarantine.refuse(path)
        until, why = self._resting.get(_key(session, destination), (0.0, ""))
        left = until - asyncio.get_running_loop().time()
        if left > 0:
            raise BrokerUnavailable(f"the stream behind {destination.uri} was refused: {why}", retry_after=left)

    def _stands(self, session: Session, destination: Destination) -> bool:
        made = self._made.get(_key(session, destination)) if session is self._session else None
        return made is not None and made.done() and not made.cancelled() and made.exception() is None

    async def _standing(self, session: Session, destination: Destination) -> None:
        self.refuse(session, destination)
        key = _key(session, destination)
        made = self._made.get(key)
        if made is None or (made.done() and not self._stands(session, destination)):
            made = self._made[key] = asyncio.get_running_loop().create_task(self._declare(session, destination, key))
            made.add_done_callback(_retrieve)
        await asyncio.shield(made)

    async def _declare(self, session: Session, destination: Destination, key: _Key) -> None:
        async with self._turn:
            try:
                async with asyncio.timeout(DEADLINE):
                    await _make(session, destination)
                    await _subscribe(session, key[0], destination, {"x-queue-name": stream_name(destination)})
            except TimeoutError:
                raise BrokerUnavailable("the broker does not confirm its declaration", retry_after=1) from None
            except BrokerRejected as error:
                self._resting[key] = (asyncio.get_running_loop().time() + REST_SECONDS, str(error))
                raise BrokerUnavailable(str(error), retry_after=REST_SECONDS) from None
            except ConnectionLost as error:
                raise BrokerUnavailable(f"the link was lost: {error}", retry_after=1) from None
            if self._made.get(key) is asyncio.current_task():  # else it was gone meanwhile
                self._known.add(key)


def paths(dialect: Dialect, destination: Destination) -> tuple[str, ...]:
    """The STOMP destinations under which it is published to; for a stream also the one with which that is made."""
    path = dialect.path(destination)
    return (declaring_path(dialect, destination), path) if destination.settings.is_stream else (path,)


def _key(session: Session, destination: Destination) -> _Key:
    return session.dialect.path(destination), stream_name(destination)


async def _make(session: Session, destination: Destination) -> None:
    """Before it is bound: what fails for a stream that cannot be read would delete it there.

    RabbitMQ declares a queue of this name once for each connection. If it is gone since, binding makes it.
    """
    path = declaring_path(session.dialect, destination)
    if path not in session.declared:
        await _subscribe(session, path, destination, {})
        session.declared.add(path)


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
    except GatewayError:
        session.drop_route(subscription)
        raise
    finally:
        session.forget(pending)
    try:
        await session.unsubscribe(subscription).future
    finally:
        session.drop_route(subscription)


def _retrieve(future: asyncio.Future[None]) -> None:
    if not future.cancelled():
        future.exception()  # whoever waits has it too; nobody may be waiting

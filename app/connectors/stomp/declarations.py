"""What stands behind Topics, declared and bound before the first publish: RabbitMQ confirms what no queue takes.

That is the stream of a Topic with `replay: stream`, and each of its durable subscriptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import chain

from app.config.settings import DestinationSettings, TopicSettings
from app.connectors.base import Destination
from app.connectors.stomp.declaring import declare
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.keeping import Keeping
from app.connectors.stomp.link import Link
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.session import Session
from app.connectors.stomp.stream_frames import declaring_headers, declaring_path, stream_name
from app.domain.errors import BrokerRejected, BrokerUnavailable, ConnectionLost, GatewayError, NotSupportedByBroker
from app.domain.uri import MqUri, subscription_queue

logger = logging.getLogger("mq_gateway.stomp")

#: Seconds for one declaration.
DEADLINE = 10.0
#: Seconds for which a stream rests that the broker refused: asking again ends the connection that all share.
REST_SECONDS = 300.0
#: The same of a durable subscription, which costs a connection of its own at most.
SHORT_REST_SECONDS = 30.0
#: The same where the broker takes one consumer: the last one may be leaving.
ONE_CONSUMER_REST_SECONDS = 1.0


def behind(destination: Destination) -> list[Destination]:
    """What has to stand before a publish: the Topic itself for its stream, and each of its subscriptions."""
    uri, settings = destination.uri, destination.settings
    names = settings.subscriptions if isinstance(settings, TopicSettings) else []
    stream = [destination] if settings.is_stream else []
    return stream + [Destination(uri, settings, name) for name in names]


#: The Topic's STOMP destination, and the name of what stands behind it.
_Key = tuple[str, str]


def _key(dialect: Dialect, wanted: Destination) -> _Key:
    if wanted.subscription is None:
        return dialect.path(wanted), stream_name(wanted)
    return dialect.path(wanted), subscription_queue(wanted.uri.name, wanted.subscription, wanted.settings.destination)


class Declarations:
    """On `link`, the connection that publishes. One after the other: the quarantine is to know which one ended it."""

    def __init__(
        self, link: Link, quarantine: Quarantine, topics: Callable[[], Iterable[Destination]], keeping: Keeping
    ) -> None:
        self._link = link
        self._quarantine = quarantine
        #: Those with something behind them, as the configuration says now.
        self._topics = topics
        self._keeping = keeping
        self._session: Session | None = None
        self._turn = asyncio.Lock()
        #: On the present connection.
        self._made: dict[_Key, asyncio.Task[None]] = {}
        self._undone: set[asyncio.Task[None]] = set()
        #: Those that stood on any connection, and of which nobody heard that they are gone.
        self._known: set[_Key] = set()
        #: Topics behind which everything stands on the present connection, as configured so: what each publish asks.
        self._ready: dict[MqUri, DestinationSettings] = {}
        #: Until when, in the loop's time, and why.
        self._resting: dict[_Key, tuple[float, str]] = {}

    def up(self, session: Session) -> None:
        """A new connection, on which nothing was declared yet: it does not wait for what the last one left undone."""
        self.close()
        self._session, self._made, self._ready = session, {}, {}

    def close(self) -> set[asyncio.Task[None]]:
        """Nothing is declared any more; what is being ended, for which others may wait."""
        self._session = None
        for task in self._undone:
            task.cancel()
        return set(self._undone)

    def forget(self) -> None:
        """A queue is gone: each is declared again before it is used again."""
        self._made, self._known, self._ready = {}, set(), {}

    async def until_declared(self) -> None:
        """Returns when `declare` is done, or there is no connection in time."""
        with contextlib.suppress(TimeoutError, GatewayError):
            async with asyncio.timeout(DEADLINE):
                await self._link.session(DEADLINE)
                await self.declare()

    async def declare(self) -> None:
        """All of them; what is refused is logged, and refused again to whoever wants it."""
        session = self._session
        if session is None:
            return
        for wanted in chain.from_iterable(map(behind, self._topics())):
            if session is not self._session:
                return
            try:
                await self._standing(session, wanted)
            except NotSupportedByBroker as error:
                logger.warning("%s", error)
            except GatewayError as error:
                logger.warning("%s: not declared: %s", wanted.uri, error)

    def forget_refusals(self) -> None:
        """The configuration is another one: what was refused may be taken now."""
        self._resting.clear()

    def is_known(self, wanted: Destination) -> bool:
        """Whether it stood, and nothing was heard since."""
        session = self._session
        return session is not None and _key(session.dialect, wanted) in self._known

    async def publishing(self, topic: Destination, timeout: float) -> Session:
        """The session to publish to this Topic with, once what is to stand behind it does; raises as `session`."""
        present = self._link.current
        if present is not None and present is self._session and self._ready.get(topic.uri) is topic.settings:
            return present  # nearly always
        wanted = behind(topic)
        session = await self.session(wanted, timeout)
        if all(self._stands(session, each) for each in wanted):
            self._ready[topic.uri] = topic.settings
        return session

    async def session(self, wanted: Sequence[Destination], timeout: float) -> Session:
        """The session to publish with, once all of these stand; raises BrokerUnavailable: nothing was sent."""
        present = self._link.current
        if present is not None and all(self._stands(present, each) for each in wanted):
            return present  # nearly always
        deadline = asyncio.get_running_loop().time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    session = self._link.current or await self._link.session(
                        deadline - asyncio.get_running_loop().time()
                    )
                    for each in wanted:
                        if session.takes_work:
                            await self._standing(session, each)
                    if session.takes_work:
                        return session
        except TimeoutError:
            raise BrokerUnavailable(
                f"what stands behind {wanted[0].uri} was not declared in time", retry_after=1
            ) from None

    def refuse(self, session: Session, wanted: Destination) -> None:
        """Raises NotSupportedByBroker; BrokerUnavailable, DestinationQuarantined for what rests."""
        if wanted.subscription is None:
            self._refuse_stream(session, wanted)
        else:
            self._keeping.refuse(session.dialect, wanted)
        until, why = self._resting.get(_key(session.dialect, wanted), (0.0, ""))
        left = until - asyncio.get_running_loop().time()
        if left > 0:
            raise BrokerUnavailable(f"what stands behind {wanted.uri} was refused: {why}", retry_after=left)

    def _refuse_stream(self, session: Session, wanted: Destination) -> None:
        dialect = session.dialect
        if not dialect.has_streams:
            broker = dialect.server or "this broker"
            raise NotSupportedByBroker(f"{wanted.uri} has `replay: stream`, which {broker} cannot do")
        for path in paths(dialect, wanted):
            self._quarantine.refuse(path)

    def _stands(self, session: Session, wanted: Destination) -> bool:
        made = self._made.get(_key(session.dialect, wanted)) if session is self._session else None
        return made is not None and made.done() and not made.cancelled() and made.exception() is None

    async def _standing(self, session: Session, wanted: Destination) -> None:
        self.refuse(session, wanted)
        if self._session is None:
            raise BrokerUnavailable(f"{self._link.name} takes no new work", retry_after=1)
        key = _key(session.dialect, wanted)
        made = self._made.get(key)
        if made is None or (made.done() and not self._stands(session, wanted)):
            made = self._made[key] = asyncio.get_running_loop().create_task(self._declare(session, wanted, key))
            self._undone.add(made)
            made.add_done_callback(self._done)
        await asyncio.wait([made])
        if session.retiring:
            return  # it may be on neither connection, and is looked for on the other one
        if made.cancelled():
            raise BrokerUnavailable(f"the link was lost before {wanted.uri} was declared", retry_after=1)
        made.result()

    def _done(self, made: asyncio.Task[None]) -> None:
        self._undone.discard(made)
        if not made.cancelled():
            made.exception()  # whoever waits has it too; nobody may be waiting

    async def _declare(self, session: Session, wanted: Destination, key: _Key) -> None:
        async with self._turn:
            try:
                async with asyncio.timeout(DEADLINE):
                    if wanted.subscription is None:
                        await _declare_stream(session, wanted)
                    else:
                        await self._keeping.keep(session, wanted)
            except TimeoutError:
                raise BrokerUnavailable("the broker does not confirm its declaration", retry_after=1) from None
            except BrokerRejected as error:
                rest = _rest(session.dialect, wanted)
                self._resting[key] = (asyncio.get_running_loop().time() + rest, str(error))
                raise BrokerUnavailable(str(error), retry_after=rest) from None
            except ConnectionLost as error:
                raise BrokerUnavailable(f"the link was lost: {error}", retry_after=1) from None
            if self._made.get(key) is asyncio.current_task():  # else it was gone meanwhile
                self._known.add(key)


def _rest(dialect: Dialect, refused: Destination) -> float:
    """Seconds for which nobody asks again."""
    if refused.subscription is None:
        return REST_SECONDS
    return SHORT_REST_SECONDS if dialect.is_shared(refused) else ONE_CONSUMER_REST_SECONDS


def paths(dialect: Dialect, destination: Destination) -> tuple[str, ...]:
    """The STOMP destinations under which it is published to; for a stream also the one with which that is made."""
    path = dialect.path(destination)
    return (declaring_path(dialect, destination), path) if destination.settings.is_stream else (path,)


async def _declare_stream(session: Session, topic: Destination) -> None:
    """Made before it is bound: what fails for a stream that cannot be read would delete it there.

    RabbitMQ declares a queue of this name once for each connection. If it is gone since, binding makes it.
    """
    name, headers, path = stream_name(topic), declaring_headers(topic), declaring_path(session.dialect, topic)
    if path not in session.declared:
        await declare(session, path, headers, name, acks=True)
        session.declared.add(path)
    await declare(session, session.dialect.path(topic), headers | {"x-queue-name": name}, name, acks=True)

"""StompMQConnector: an mqService on one STOMP connection, shared by everybody; with `split` on two."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any

from app.config.settings import ServiceSettings
from app.connectors.base import ConnectorContext, Destination, Listener, MQConnector, Subscription
from app.connectors.replies import Replies
from app.connectors.stomp.alias import Alias
from app.connectors.stomp.consumers import Consumers
from app.connectors.stomp.declarations import Declarations, paths
from app.connectors.stomp.dialect import Dialect
from app.connectors.stomp.keeping import Keeping
from app.connectors.stomp.known_paths import known_paths
from app.connectors.stomp.link import Link, Residents
from app.connectors.stomp.member import Member, Neighbours
from app.connectors.stomp.publisher import Publisher
from app.connectors.stomp.quarantine import Quarantine
from app.connectors.stomp.reading import Reading
from app.connectors.stomp.requester import Requester
from app.connectors.stomp.session import Session
from app.connectors.stomp.succession import DECLARATIONS
from app.domain.errors import InvalidName
from app.domain.link import LinkState, LinkStatus, combined
from app.domain.message import Message, Publication
from app.domain.stream import StreamStart
from app.domain.uri import DestinationType, MqUri

#: Seconds for what is still to be done when the connection has been ended.
_CHORES_DEADLINE = 1.0


class StompMQConnector(MQConnector):
    """Publishes with a receipt each; subscriptions outlive the connection; a request ends as exactly one outcome.

    With `connections: split` publishing has a connection of its own: a broker that does not read from one that
    publishes (RabbitMQ under a memory alarm) still takes the ACKs of the other. Streams, and RabbitMQ's durable
    subscriptions, are read on one more, once somebody reads them. With `consume_from: all` every address has one for
    consuming, beside the one that publishes.
    """

    has_subscriptions = True

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        super().__init__(service, settings, context)
        self._state = LinkState.CONNECTING
        self._dialect = Dialect("", settings.max_frame_bytes)
        self._quarantine = Quarantine(service, context.on_event)
        self._links = tuple(self._link(name) for name in _link_names(service, settings))
        neighbours = Neighbours(self._welcome, self._changed, context.on_event)
        self._alias = Alias(service, settings, self._quarantine, neighbours) if settings.consume_from == "all" else None
        self._stream_link = self._link(f"{service} (streams)")
        self._keeping = Keeping(settings, self._links[-1])
        self._declarations = Declarations(self._links[0], self._quarantine, self._backed_topics, self._keeping)
        self._publisher = Publisher(
            service, settings, self._links[0], self._quarantine, self._declarations, window=context.in_flight
        )
        self._replies = Replies(service, context.in_flight, context.on_event)
        self._requester = Requester(service, self._publisher, self._replies)
        self._consumers = Consumers(service, settings, self._links[-1], self._quarantine)
        self._reading = Reading(service, settings, self._stream_link, self._quarantine, self._declarations)
        self._running: list[asyncio.Task[None]] = []

    def _link(self, name: str) -> Link:
        residents = Residents(
            up=partial(self._up, name),
            lost=partial(self._lost, name),
            changed=self._changed,
            on_event=self.context.on_event,
        )
        return Link(name, self.settings, residents)

    async def start(self) -> None:
        self._apply()
        self._running = [asyncio.create_task(link.run(), name=f"link {link.name}") for link in self._links]
        if self._alias is not None:
            self._running.append(asyncio.create_task(self._alias.run(), name=f"names of {self.service}"))

    @property
    def status(self) -> LinkStatus:
        consuming = [self._alias.status] if self._alias is not None else []
        return combined([link.status for link in self._links] + consuming)

    @property
    def in_flight(self) -> int:
        return self._publisher.in_flight

    @property
    def awaiting_reply(self) -> int:
        return len(self._replies)

    @property
    def max_frame(self) -> int | None:
        return self._dialect.max_frame

    def check_name(self, uri: MqUri) -> None:
        self._dialect.check_name(uri)

    def check(self, destination: Destination, publication: Publication) -> None:
        self._publisher.frame(self._dialect, destination, publication)

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        await self._publisher.publish(destination, publication, timeout, confirm)

    async def publish_together(
        self, destination: Destination, publications: Sequence[Publication], *, timeout: float, confirm: bool = True
    ) -> None:
        await self._publisher.publish_together(destination, publications, timeout, confirm)

    async def request(self, destination: Destination, publication: Publication, *, timeout: float) -> Message:
        return await self._requester.request(destination, publication, timeout)

    async def subscribe(
        self,
        destination: Destination,
        listener: Listener,
        *,
        acknowledge: bool,
        prefetch: int,
        timeout: float,
        start: StreamStart | None = None,
    ) -> Subscription:
        if start is not None:
            return await self._reading.subscribe(destination, listener, prefetch=prefetch, timeout=timeout, start=start)
        if destination.subscription is not None:
            return await self._take_up(destination, listener, prefetch, timeout)
        consumers = self._alias or self._consumers
        return await consumers.subscribe(
            destination, listener, acknowledge=acknowledge, prefetch=prefetch, timeout=timeout
        )

    async def _take_up(
        self, destination: Destination, listener: Listener, prefetch: int, timeout: float
    ) -> Subscription:
        """Consume from a durable subscription, once it stands."""
        deadline = asyncio.get_running_loop().time() + timeout
        session = await self._declarations.session([destination], timeout)
        left = deadline - asyncio.get_running_loop().time()
        if session.dialect.reads_apart:
            return await self._reading.subscribe(destination, listener, prefetch=prefetch, timeout=left, start=None)
        return await self._consumers.subscribe(destination, listener, acknowledge=True, prefetch=prefetch, timeout=left)

    def is_shared(self, destination: Destination) -> bool:
        return self._dialect.is_shared(destination)

    def quarantined(self, destination: Destination) -> bool:
        with contextlib.suppress(InvalidName):
            return any(map(self._quarantine.holds, paths(self._dialect, destination)))
        return False

    # The life of the links.

    def _welcome(self, session: Session) -> None:
        self._dialect = session.dialect
        self._learn(session)
        session.on_ended = partial(self._subscription_ended, session)

    def _up(self, link: str, session: Session) -> Coroutine[Any, Any, None]:
        self._welcome(session)
        if link == self._stream_link.name:
            return self._reading.restore(session)
        self._quarantine.up(link, session)
        if link == self._links[0].name:
            self._declarations.up(session)
            self._consumers.chore(self._declarations.declare())
        return self._consumers.restore(session) if link == self._links[-1].name else _nothing()

    @property
    def _members(self) -> list[Member]:
        return self._alias.members if self._alias is not None else []

    @property
    def _all_links(self) -> tuple[Link, ...]:
        return (*self._links, *(member.link for member in self._members), self._stream_link)

    def _backed_topics(self) -> list[Destination]:
        return [
            Destination(MqUri(self.service, DestinationType.TOPICS, name), settings)
            for name, settings in self.settings.topics.items()
            if settings.is_backed
        ]

    def _subscription_ended(self, session: Session, path: str) -> None:
        """A queue was deleted under its consumer: only another connection makes RabbitMQ declare it again.

        It is made when somebody wants the queue again; nobody else is to notice what happened to it.
        """
        self._declarations.forget()
        if not (session.dialect.declares_once and path.startswith("/queue/")):
            return
        for each in (session, *(link.current for link in self._links)):
            if each is not None and (self._alias is None or each.address == session.address):
                each.stale.add(path)

    def _learn(self, session: Session) -> None:
        """What the declared destinations are called on this connection."""
        session.known_paths = dict(known_paths(self.service, self.settings, session.dialect))
        session.knows_all = self.settings.allow_undeclared

    def _lost(self, link: str, session: Session) -> None:
        if link == self._stream_link.name:
            self._reading.lost(session)
            return
        self._quarantine.lost(link, session)
        if link == self._links[-1].name:
            self._consumers.lost()

    def _changed(self, _previous: LinkState, _state: LinkState) -> None:
        previous, self._state = self._state, self.status.state
        if self._state is not previous:
            self.context.on_state(previous, self._state)

    def retry(self) -> None:
        self._requester.forgive()
        for link in self._all_links:
            link.retry()
        if self._alias is not None:
            self._alias.retry()

    def reconfigure(self, settings: ServiceSettings) -> bool:
        if _kind(settings) != _kind(self.settings):
            return False
        same = settings.model_dump(exclude=DECLARATIONS) == self.settings.model_dump(exclude=DECLARATIONS)
        self.settings = self._publisher.settings = self._keeping.settings = settings
        self._consumers.settings = self._reading.consumers.settings = settings
        self._requester.forgive()
        if not same:
            self._apply()
        if self._alias is not None:
            self._alias.settle(settings, connect=not same)
        for link in self._all_links:
            if link.current is not None:
                self._learn(link.current)
        self._declarations.forget_refusals()
        if self._links[0].current is not None:
            self._consumers.chore(self._declarations.declare())
        return True

    def _apply(self) -> None:
        """A client id is for the connection that consumes: brokers take it from one connection only."""
        for link in (*self._links, self._stream_link):
            consumes = link is self._links[-1] and self._alias is None
            link.reconfigure(self.settings if consumes else self.settings.model_copy(update={"client_id": None}))

    async def close(self, timeout: float) -> None:
        running, self._running = self._running, []
        if not running:
            return
        if self._alias is not None:
            self._alias.drain()
        reading = self._reading.close()
        links = self._all_links if reading else self._all_links[:-1]
        running += reading
        running += [member.running for member in self._members]
        sessions = [link.current for link in links]
        for link in links:
            link.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._publisher.idle()
                await asyncio.gather(*(each.disconnect() for each in sessions if each is not None and each.is_open))
        for task in running:
            task.cancel()  # ends the connection, and with it whatever still waits for an answer
        chores = {*self._declarations.close(), *self._consumers.chores, *self._reading.consumers.chores}
        chores |= self._alias.work if self._alias is not None else set()
        _done, late = await asyncio.wait({*running, *chores}, timeout=_CHORES_DEADLINE)
        for task in late:
            task.cancel()
        for link in links:
            link.finish()


def _kind(settings: ServiceSettings) -> tuple[str, str, bool]:
    """What a connector is made for: with another one it cannot go on."""
    return settings.mq_type, settings.connections, settings.consume_from == "all"


def _link_names(service: str, settings: ServiceSettings) -> tuple[str, ...]:
    """The links that are always there: the first publishes, the last consumes unless an alias does."""
    if settings.consume_from == "all":
        return (f"{service} (publishing)",)
    return (f"{service} (publishing)", f"{service} (consuming)") if settings.connections == "split" else (service,)


async def _nothing() -> None:
    """There is nothing to restore."""

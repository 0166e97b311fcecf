"""Gateway: the façade over registry and streams. The HTTP layer and Python programs use the same calls.

async with Gateway.from_files("dirac.cfg") as gateway:
    producer = await gateway.create_producer("mardirac3.in2p3.fr::Queues::TestQueue")
    await producer.put_json({"JobID": 1})
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self
from weakref import WeakSet

from app.config.loader import load_settings
from app.config.settings import Settings
from app.connectors.base import Destination
from app.domain.errors import Draining
from app.domain.message import Message, Publication, Published
from app.domain.uri import DestinationType, MqUri
from app.gateway.admission import Admission
from app.gateway.answers import Answers
from app.gateway.budget import Budget
from app.gateway.closing import CUT_OFF_SECONDS, Farewells, close_together
from app.gateway.counters import Counters, declared
from app.gateway.idempotency import Once
from app.gateway.instance import new_instance
from app.gateway.leases import Lease
from app.gateway.messengers import Consumer, Producer
from app.gateway.outbox import Outbox
from app.gateway.registry import Change, Registry, Sight
from app.gateway.requests import Requests
from app.gateway.stream import Reader, StreamRequest
from app.gateway.streams import Streams
from app.gateway.takings import Takings
from app.gateway.views import DestinationView, ServiceView, destination_view, service_view
from app.telemetry.metrics import Metrics
from app.wire.keys import derived

#: Seconds for everything when the gateway closes; a server waits 10.
CLOSE_SECONDS = 8.0
#: Of these, at most, for consumers and Queue streams to give back; the rest is for RECEIPTs and DISCONNECT.
GIVE_BACK_SECONDS = 3.5
#: This part of the memory, one in so many, may wait for clients that do not take it.
OUTBOX_PART = 4
#: Seconds before connections are cut off in which who waits for a reply is told that none comes.
LAST_WORDS_SECONDS = 1.0
_OUTDATED = "its service is configured otherwise now"


class Gateway:
    """Use as an async context manager. Nothing blocks at the start: links come up in the background."""

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.metrics = metrics or Metrics()
        self.draining = False
        self.instance = new_instance()
        self.started_at = time.time()
        self.budget = Budget(settings.limits.memory, self._buffered, self._give_way)
        grew = self.budget.grew
        self._counters = Counters(settings.services)
        key, linger = derived(settings.auth.secret, "leases"), settings.limits.receive_linger
        self.takings = Takings(self.instance, self.metrics, self._counters.used, grew, linger=linger, key=key)
        self.answers = Answers(self.takings, self.budget, settings, self.metrics)
        self._streams = Streams(self.metrics, self._counters.used, grew, self.takings)
        self._registry = Registry(settings, self.metrics, self._streams.tell_link)
        self.admission = Admission(self._registry, settings.limits)
        self.outbox = Outbox(settings.limits.memory // OUTBOX_PART, grew)
        self._requests = Requests(self.budget, self._counters, grew)
        self.once = Once(self.publish, settings.limits, grew)
        self.metrics.unsent_bytes.set_function(lambda: self.outbox.buffered)
        #: Weak: a consumer nobody holds any more has ended by itself.
        self._consumers: WeakSet[Consumer] = WeakSet()
        #: Of connectors that a reload left without work.
        self._farewells = Farewells()

    @classmethod
    def from_files(cls, *files: str | Path) -> Self:
        """From configuration files as `mq-gateway serve --config` takes them; raises ConfigError."""
        return cls(load_settings([Path(file) for file in files]).settings)

    async def __aenter__(self) -> Self:
        await self._registry.start()
        self._settle()
        return self

    def _settle(self) -> None:
        """What services have from their beginning on: a metric, and the Topics to be kept."""
        for name, connector in self._registry:
            self.metrics.buffer_bytes.labels(name).set_function(partial(self._parked, name))
            self.metrics.leases.labels(name).set_function(partial(self.takings.leases.of_service, name))
            for topic, settings in connector.settings.topics.items():
                if settings.keep:
                    uri = MqUri(name, DestinationType.TOPICS, topic)
                    self._streams.keep(Destination(uri, settings), settings, connector)

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.draining = True
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CLOSE_SECONDS
        await asyncio.gather(
            *self._farewells,
            close_together("consumers", [consumer.close() for consumer in self._consumers], GIVE_BACK_SECONDS),
            self._streams.close(GIVE_BACK_SECONDS),
            self.takings.close(GIVE_BACK_SECONDS),
            self.answers.close(GIVE_BACK_SECONDS),
        )
        await self._registry.close(deadline - loop.time() - 2 * CUT_OFF_SECONDS)

    async def reload(self, settings: Settings) -> Change:
        """Take over services and peers of another configuration; everything else counts from the next start on.

        Streams of destinations that are gone or changed end; of a changed service the others go on, over a gap.
        Raises what the constructor of a connector raises, and then nothing has changed.
        """
        before = self.settings.services
        change = await self._registry.reload(settings.services)
        replaced = {connector.service for connector in change.outdated}

        def outdated(uri: MqUri) -> bool:
            old, new = before.get(uri.service), settings.services.get(uri.service)
            return uri.service in replaced or not old or not new or old.destination(uri) != new.destination(uri)

        server = self.answers.reload(settings.server)
        self.settings = self.settings.model_copy(update={"services": settings.services, "server": server})
        self._counters.reload(settings.services)
        self._streams.retire(outdated)
        self.takings.retire(outdated)
        for consumer in list(self._consumers):
            if consumer.destination.uri.service in replaced:
                consumer.on_cancelled(_OUTDATED)
        self._settle()
        for name in change.removed:
            self.metrics.forget(name)
        for connector in change.outdated:
            self._farewells.add(partial(connector.close, GIVE_BACK_SECONDS), GIVE_BACK_SECONDS, now=self.draining)
        return change

    def _buffered(self) -> int:
        """Bytes held beside what is reserved for publishes under way."""
        connectors = sum(connector.buffered for _, connector in self._registry)
        clients = self.outbox.buffered + self._requests.buffered + self.once.buffered
        return self._parked() + clients + connectors + sum(consumer.buffered for consumer in self._consumers)

    def _parked(self, service: str | None = None) -> int:
        return self._streams.buffered(service) + self.takings.buffered(service)

    def _give_way(self, wanted: int) -> None:
        """What waits for a taker goes back to its queue before anybody's stream is touched."""
        self._streams.give_way(wanted - self.takings.give_way(wanted))

    def _refuse_new_work(self) -> None:
        if self.draining:
            raise Draining("the gateway is shutting down", retry_after=1)

    # Publishing.

    def resolve(self, uri: MqUri, sight: Sight | None = None) -> Destination:
        """The declared destination; raises InvalidName, UnknownService, UnknownDestination; hints at what is seen."""
        return self._registry.resolve(uri, sight)

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> Published:
        """Publish one message; returns when the broker confirmed it (`confirm`), else when it was handed over.

        `timeout` in seconds covers the waiting for a link that is connecting and for the RECEIPT. Raises
        BadRequest, Unavailable (both: nothing was sent), BrokerRejected or OutcomeUnknown.
        """
        self._refuse_new_work()
        self.admission.check(destination, publication)
        connector = self._registry.connector(destination.uri.service)
        with self.budget.reserve(destination.uri.service, publication.size):
            await connector.publish(destination, publication, timeout=timeout, confirm=confirm)
        self._counters.used(destination.uri).published += 1
        return Published(
            message_id=publication.message_id,
            mq_uri=destination.uri,
            confirmed=confirm,
            persistent=publication.persistent,
        )

    async def publish_together(
        self, destination: Destination, publications: Sequence[Publication], *, timeout: float, confirm: bool = True
    ) -> None:
        """All of these, which passed `admission.check_wholly`, in one transaction.

        Raises as `publish`, for them all.
        """
        self._refuse_new_work()
        connector = self._registry.connector(destination.uri.service)
        with self.budget.reserve(destination.uri.service, sum(each.size for each in publications)):
            await connector.publish_together(destination, publications, timeout=timeout, confirm=confirm)
        self._counters.used(destination.uri).published += len(publications)

    def request(
        self, destination: Destination, publication: Publication, *, timeout: float
    ) -> AbstractAsyncContextManager[Message]:
        """Publish, and enter with the reply, within `timeout` seconds; raises as `publish` does, and NoReply."""
        self._refuse_new_work()
        self.admission.check(destination, publication)
        return self._requests.ask(self._registry.connector(destination.uri.service), destination, publication, timeout)

    # Consuming.

    async def open_stream(self, destination: Destination, request: StreamRequest, *, timeout: float) -> Reader:
        """A reader of a destination, once the broker took the subscription; raises Unavailable, BrokerRejected."""
        self._refuse_new_work()
        connector = self._registry.connector(destination.uri.service)
        reader = await self._streams.open(destination, connector, request, timeout)
        if self.draining:  # it began while the broker was asked
            reader.end("drain")
        elif self._registry.is_outdated(connector, destination):
            reader.end("reload")
        return reader

    async def take(self, destination: Destination, *, most: int, seconds: float, wait: float) -> list[Lease]:
        """Up to `most` messages, leased for `seconds`, of a Queue or durable subscription; waits about `wait` seconds.

        They are to be answered with `takings`. Raises Unavailable, BrokerRejected, ConfirmTimeout.
        """
        self._refuse_new_work()
        connector = self._registry.connector(destination.uri.service)
        return await self.takings.take(destination, connector, most=most, seconds=seconds, wait=wait)

    # DIRAC's two calls.

    async def create_producer(self, mq_uri: str) -> Producer:
        """A producer for an mqURI; raises InvalidName, UnknownService, UnknownDestination."""
        return Producer(self.resolve(MqUri.parse(mq_uri)), self.publish)

    async def create_consumer(
        self, mq_uri: str, callback: Callable[[Message], Awaitable[None]] | None = None, *, timeout: float = 10.0
    ) -> Consumer:
        """A consumer of an mqURI; with a callback messages go there, else `get` takes them one by one.

        Returns when the broker took the subscription, at most `timeout` seconds later; raises Unavailable.
        """
        destination = self.resolve(MqUri.parse(mq_uri))
        consumer = Consumer(destination, callback)
        connector = self._registry.connector(destination.uri.service)
        await consumer.open(connector, timeout)
        self._consumers.add(consumer)
        if self._registry.is_outdated(connector, destination):
            consumer.on_cancelled(_OUTDATED)
        return consumer

    # Looking.

    def services(self, sight: Sight | None = None) -> list[ServiceView]:
        """All services, or those that `sight` sees, by name."""
        names = sorted(name for name, _connector in self._registry if sight is None or sight.sees_service(name))
        return [self.service(name, sight) for name in names]

    def service(self, name: str, sight: Sight | None = None) -> ServiceView:
        """One service with its declared destinations and the last used of the others; raises UnknownService."""
        connector = self._registry.connector(name, sight)
        others, omitted = self._counters.undeclared(name)
        # Not resolved: one name that this broker would refuse must not hide the others.
        found = {uri: connector.settings.destination(uri) for uri in (*declared(name, connector.settings), *others)}
        views = [
            self.destination_view(Destination(uri, settings))
            for uri, settings in found.items()
            if settings is not None and (sight is None or sight.sees(uri))
        ]
        return service_view(connector, views, omitted)

    def destination_view(self, destination: Destination) -> DestinationView:
        """One destination with its counters."""
        uri = destination.uri
        rests = self._registry.connector(uri.service).quarantined(destination)
        leases, readers = self.takings.leases.of(uri), self._streams.readers(uri)
        return destination_view(destination, readers, self._counters.of(uri), leases=leases, quarantined=rests)

    def link_states(self) -> dict[str, str]:
        """The state of the link of every service."""
        return {name: connector.status.state.value for name, connector in self._registry}

    def ready(self) -> bool:
        """Whether this process should get work: not draining, and every required service has been up once."""
        return not self.draining and not self._registry.never_up()

    async def drain(self) -> None:
        """Begin the end: no new work, streams end after what they have queued. Again: nothing more."""
        if self.draining:
            return
        self.draining = True
        self._streams.end_all("drain")
        self.takings.stop()
        server = self.settings.server
        left = server.drain_delay + server.drain_seconds - LAST_WORDS_SECONDS
        asyncio.get_running_loop().call_later(max(0.0, left), self._requests.give_up)

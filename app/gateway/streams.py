"""All open streams: Topics with their rings, Queue readers, and who wants to know of the link."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakSet

from app.config.settings import TopicSettings
from app.connectors.base import Destination, MQConnector
from app.domain.link import LinkState
from app.domain.uri import MqUri
from app.gateway.closing import close_together
from app.gateway.lease_stream import LeaseReader
from app.gateway.queue import QueueReader
from app.gateway.queue_stream import QueueStream
from app.gateway.stream import Counts, Reader, StreamRequest
from app.gateway.stream_topic import StreamTopic
from app.gateway.takings import Takings
from app.gateway.topic import Topic
from app.telemetry.metrics import Metrics
from app.wire import sse

logger = logging.getLogger("mq_gateway.streams")


class Streams:
    """Opens readers and ends them. `counts` is asked for a destination's counts once a reader is open.

    `grew` is told of every change of a ring, in bytes.
    """

    def __init__(
        self, metrics: Metrics, counts: Callable[[MqUri], Counts], grew: Callable[[int], None], takings: Takings
    ) -> None:
        self._metrics = metrics
        self._takings = takings
        self._counts = counts
        self._grew = grew
        self._topics: dict[MqUri, Topic] = {}
        #: Of an older configuration, until their last reader has gone.
        self._retired: list[Topic] = []
        self._queues: dict[MqUri, set[QueueStream[Any]]] = {}
        #: Weak, so that a closed reader leaves without a word.
        self._status: dict[str, WeakSet[Reader]] = defaultdict(WeakSet)
        #: What was told of each link; none is up before it was.
        self._links: dict[str, str] = {}
        self._keepers: dict[MqUri, asyncio.Task[None]] = {}

    async def open(
        self, destination: Destination, connector: MQConnector, request: StreamRequest, timeout: float
    ) -> Reader:
        """A reader, once the broker took the subscription."""
        if isinstance(destination.settings, TopicSettings):
            reader: Reader = await self._topic(destination, destination.settings, connector).open(request, timeout)
        else:
            reader = await self._open_queue(destination, connector, request, timeout)
        if request.status:
            self._status[destination.uri.service].add(reader)
        return reader

    def _topic(self, destination: Destination, settings: TopicSettings, connector: MQConnector) -> Topic:
        uri = destination.uri
        topic = self._topics.get(uri)
        if topic is None:
            self._drop_idle()
            gaps = self._metrics.gaps
            make = StreamTopic if settings.is_stream else Topic
            topic = self._topics[uri] = make(
                destination,
                settings,
                connector,
                counts=partial(self._counts, uri),
                on_gap=lambda reason: gaps.labels(uri.service, reason).inc(),
                grew=self._grew,
            )
        return topic

    def _drop_idle(self) -> None:
        for uri in [uri for uri, topic in self._topics.items() if topic.is_idle]:
            del self._topics[uri]
        self._retired = [topic for topic in self._retired if not topic.is_idle]

    def _all_topics(self) -> list[Topic]:
        return [*self._topics.values(), *self._retired]

    async def _open_queue(
        self, destination: Destination, connector: MQConnector, request: StreamRequest, timeout: float
    ) -> QueueStream[Any]:
        uri, left = destination.uri, partial(self._forget_queue_reader, destination.uri)
        reader: QueueStream[Any]
        if request.lease is not None:
            reader = LeaseReader(request.format, request.lease, self._takings, left, self._grew)
            await reader.open(destination, connector, partial(self._counts, uri), timeout)
        else:
            reader = QueueReader(request.format, left, self._grew)
            subscription = await connector.subscribe(
                destination, reader, acknowledge=True, prefetch=destination.settings.prefetch, timeout=timeout
            )
            reader.attach(subscription, self._counts(uri))
        self._queues.setdefault(uri, set()).add(reader)
        return reader

    def _forget_queue_reader(self, uri: MqUri, reader: QueueStream[Any]) -> None:
        readers = self._queues.get(uri, set())
        readers.discard(reader)
        if not readers:  # where undeclared destinations are allowed, names come without end
            self._queues.pop(uri, None)

    def keep(self, destination: Destination, settings: TopicSettings, connector: MQConnector) -> None:
        """Subscribe a Topic marked `keep` from the start."""
        if destination.uri in self._keepers:
            return
        topic = self._topic(destination, settings, connector)
        self._keepers[destination.uri] = asyncio.get_running_loop().create_task(topic.keep())

    def retire(self, outdated: Callable[[MqUri], bool]) -> None:
        """What the configuration no longer has as it was: its streams end, and whoever comes back gets it as it is."""
        self._drop_idle()
        for uri in list(filter(outdated, self._topics)):
            topic = self._topics.pop(uri)
            self._retired.append(topic)
            topic.retire()
        for uri in list(filter(outdated, self._keepers)):
            self._keepers.pop(uri).cancel()
        for uri in filter(outdated, self._queues):
            for reader in self._queues[uri]:
                reader.end("reload")

    def readers(self, uri: MqUri) -> int:
        """Open streams on a destination."""
        topic = self._topics.get(uri)
        return len(topic.readers) if topic is not None else len(self._queues.get(uri, ()))

    def buffered(self, service: str | None = None) -> int:
        """Bytes held in rings and readers, of one service or of all."""
        topics = self._all_topics()
        rings = sum(topic.buffered for topic in topics if service in {None, topic.destination.uri.service})
        parked = sum(
            reader.buffered
            for uri, readers in self._queues.items()
            if service in {None, uri.service}
            for reader in readers
        )
        return rings + parked

    def give_way(self, wanted: int) -> None:
        """Free `wanted` bytes: the fullest rings let their oldest events go, and their slow readers are told.

        If that is not enough, the streams of Queues that hold most end.
        """
        for topic in sorted(self._all_topics(), key=lambda topic: topic.buffered, reverse=True):
            if wanted <= 0:
                return
            wanted -= topic.give_way(wanted)
        readers = [reader for readers in self._queues.values() for reader in readers]
        for reader in sorted(readers, key=lambda reader: reader.buffered, reverse=True):
            if wanted <= 0:
                return
            wanted -= reader.give_way()

    def tell_link(self, service: str, state: LinkState) -> None:
        """`event: status` for those who asked, when the link goes up or down."""
        link = "up" if state is LinkState.UP else "down"
        if state is LinkState.DRAINING or link == self._links.get(service, "down"):
            return
        self._links[service] = link
        notice = sse.json_event("status", {"service": service, "link": link})
        for reader in self._status.get(service, ()):
            reader.push(notice)

    def end_all(self, reason: str) -> None:
        """Every stream ends after what it has queued."""
        for topic in self._all_topics():
            for reader in topic.readers:
                reader.end(reason)
        for readers in self._queues.values():
            for queue_reader in readers:
                queue_reader.end(reason)

    async def close(self, seconds: float) -> None:
        """At shutdown: what Queue readers hold goes back, within about `seconds`. Topics end with their links."""
        for topic in self._all_topics():
            topic.stop()
        keepers = list(self._keepers.values())
        self._keepers.clear()
        for task in keepers:
            task.cancel()
        left = [reader.close() for readers in self._queues.values() for reader in readers]
        await close_together("streams", [*keepers, *left], seconds)

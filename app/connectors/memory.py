"""MemoryMQConnector: queues and topics inside the process, with the semantics of the real brokers.

For trying things out and for tests: the main job runs with nothing installed. Messages die with the process.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from app.config.settings import DestinationSettings, ServiceSettings, TopicSettings
from app.connectors.base import ConnectorContext, Delivery, Destination, Listener, MQConnector, Subscription
from app.connectors.memory_queue import MESSAGE_BYTES, MemoryQueue, QueueConsumer, Room, Stored
from app.connectors.memory_stream import MemoryStream
from app.connectors.replies import Replies, in_time
from app.domain.errors import ConnectionLost, Draining, NoReply, NotSupportedByBroker, Overloaded
from app.domain.link import LinkState, LinkStatus
from app.domain.message import Message, Publication
from app.domain.stream import StreamStart
from app.domain.uri import MqUri

#: A Queue, or a Topic with the name of a durable subscription.
_Source = tuple[MqUri, str | None]


class _QueueSubscription(Subscription):
    def __init__(self, queue: MemoryQueue, consumer: QueueConsumer, on_close: Callable[[], None]) -> None:
        self._queue = queue
        self._consumer = consumer
        self._on_close = on_close

    def ack(self, delivery: Delivery) -> bool:
        return self._queue.ack(self._consumer, delivery.token)

    def nack(self, delivery: Delivery) -> bool:
        return self._queue.nack(self._consumer, delivery.token)

    def reject(self, delivery: Delivery) -> bool:
        return self._queue.ack(self._consumer, delivery.token)  # as RabbitMQ's queues without a dead-letter exchange

    async def close(self, timeout: float) -> None:
        self._queue.part(self._consumer)
        self._on_close()


class _TopicSubscription(Subscription):
    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close

    def ack(self, delivery: Delivery) -> bool:
        return False

    def nack(self, delivery: Delivery) -> bool:
        return False

    async def close(self, timeout: float) -> None:
        self._on_close()


class MemoryMQConnector(MQConnector):
    """Always up, confirms at once."""

    has_subscriptions = True

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        super().__init__(service, settings, context)
        self._room = Room()
        self._queues: dict[_Source, MemoryQueue] = {}
        self._topics: dict[MqUri, list[Listener]] = {}
        self._streams: dict[MqUri, MemoryStream] = {}
        self._replies = Replies(service, context.in_flight, context.on_event)
        self._reply_path = f"/temp-queue/{secrets.token_hex(8)}"
        self._state, self._since = LinkState.CONNECTING, time.time()

    def _enter(self, state: LinkState) -> None:
        if state is not self._state:
            previous, self._state, self._since = self._state, state, time.time()
            self.context.on_state(previous, state)

    async def start(self) -> None:
        self._enter(LinkState.UP)

    async def close(self, timeout: float) -> None:
        self._enter(LinkState.CLOSED)
        self._replies.fail(self, lambda: ConnectionLost("the connector was closed before a reply came"))

    def reconfigure(self, settings: ServiceSettings) -> bool:
        if settings.mq_type != self.settings.mq_type:
            return False
        self.settings = settings
        for uri, name in list(self._queues):
            if name is not None and (uri, name) not in _sources(uri, settings.destination(uri)):
                self._queues.pop((uri, name)).discard()
        return True

    @property
    def status(self) -> LinkStatus:
        up = self._state is LinkState.UP
        return LinkStatus(state=self._state, since=self._since, broker="Memory", address="memory", epoch=1, ever_up=up)

    @property
    def in_flight(self) -> int:
        return 0

    @property
    def awaiting_reply(self) -> int:
        return len(self._replies)

    @property
    def buffered(self) -> int:
        return self._room.bytes + sum(stream.bytes for stream in self._streams.values())

    def check(self, destination: Destination, publication: Publication) -> None:
        if publication.delay_ms is not None or publication.group is not None:
            raise NotSupportedByBroker("delay and group are not mapped to this broker")

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        self._publish(destination, (publication,))

    async def publish_together(
        self, destination: Destination, publications: Sequence[Publication], *, timeout: float, confirm: bool = True
    ) -> None:
        self._publish(destination, publications)

    def _refuse_new_work(self) -> None:
        if self._state is not LinkState.UP:
            raise Draining(f"{self.service} takes no new work", retry_after=1)

    def _publish(self, destination: Destination, publications: Sequence[Publication]) -> None:
        """All of them in one turn of the loop, or none."""
        self._refuse_new_work()
        for publication in publications:
            self.check(destination, publication)
        received = [(_as_received(destination.uri, each), each.ttl_ms) for each in publications]
        if destination.settings.destination == self._reply_path:
            for message, _ in received:
                self._answer(message)
        else:
            self._deliver(destination, received)

    def _deliver(self, destination: Destination, received: Sequence[tuple[Message, int | None]]) -> None:
        """Messages to one destination, each with its time to live in milliseconds."""
        uri = destination.uri  # of the present configuration: a batch may have begun under another one
        self._store(_sources(uri, self.settings.destination(uri)), received)
        if not destination.uri.is_queue:
            for message, _ in received:
                self._spread(destination, message)

    def _spread(self, destination: Destination, message: Message) -> None:
        if destination.settings.is_stream:
            self._stream(destination).append(message)
        for number, listener in enumerate(list(self._topics.get(message.mq_uri, ())), 1):
            listener.on_message(Delivery(message, str(number), 1))

    def _answer(self, message: Message) -> None:
        """What is published to the queue for replies, as the header `reply-to` of a request names it."""
        awaited = self._replies.take(message.headers.get("correlation-id", ""))
        if awaited is not None:
            awaited.reply.set_result(replace(message, mq_uri=awaited.uri))

    async def request(self, destination: Destination, publication: Publication, *, timeout: float) -> Message:
        self._refuse_new_work()
        self.check(destination, publication)
        with self._replies.expect(destination.uri) as awaited:
            awaited.owner = self
            request = _as_received(destination.uri, awaited.asked(publication))
            headers = {**request.headers, "reply-to": self._reply_path}
            self._deliver(destination, [(replace(request, headers=headers), publication.ttl_ms)])
            try:
                reply = await in_time(awaited.reply, timeout)
            finally:
                del awaited
        if reply is None:
            raise NoReply(f"no reply came within {timeout:g} s")
        return reply

    def _store(self, sources: Sequence[_Source], received: Sequence[tuple[Message, int | None]]) -> None:
        """Each message in each of these, or none at all; raises Overloaded."""
        copies = [(source, _stored(message, ttl_ms)) for message, ttl_ms in received for source in sources]
        stored = [copy for _, copy in copies]
        if not self._room.has_place(*stored):
            self._drop_expired()
        if not self._room.has_place(*stored):
            raise Overloaded("the queues in memory are full", retry_after=1)
        for source, copy in copies:
            self._queue(source).put(copy)

    def _stream(self, destination: Destination) -> MemoryStream:
        found = self._streams.get(destination.uri)
        if found is None:
            settings = destination.settings
            max_age = settings.stream_max_age if isinstance(settings, TopicSettings) else None
            found = self._streams[destination.uri] = MemoryStream(max_age)
        return found

    def _queue(self, source: _Source) -> MemoryQueue:
        return self._queues.setdefault(source, MemoryQueue(self._room))

    def _drop_expired(self) -> None:
        for source, queue in list(self._queues.items()):
            queue.drop_expired()
            self._drop_idle(source)

    def _drop_idle(self, source: _Source) -> None:
        # Where undeclared destinations are allowed, names come without end.
        if source in self._queues and self._queues[source].is_idle:
            del self._queues[source]

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
        uri, name = destination.uri, destination.subscription
        if start is not None:
            return self._stream(destination).subscribe(listener, start, prefetch)
        if not uri.is_queue and name is None:
            self._topics.setdefault(uri, []).append(listener)
            return _TopicSubscription(partial(self._leave_topic, uri, listener))
        queue = self._queue((uri, name))
        consumer = QueueConsumer(listener, prefetch if acknowledge else None)
        queue.join(consumer)
        return _QueueSubscription(queue, consumer, partial(self._drop_idle, (uri, name)))

    def _leave_topic(self, uri: MqUri, listener: Listener) -> None:
        left = [other for other in self._topics.pop(uri, ()) if other is not listener]
        if left:
            self._topics[uri] = left


def _sources(uri: MqUri, settings: DestinationSettings | None) -> list[_Source]:
    """Where messages of this destination wait for their consumers: a Topic has one place for each subscription."""
    if uri.is_queue:
        return [(uri, None)]
    return [(uri, name) for name in settings.subscriptions] if isinstance(settings, TopicSettings) else []


def _stored(message: Message, ttl_ms: int | None) -> Stored:
    expires_at = None if ttl_ms is None else time.time() + ttl_ms / 1000
    return Stored(message, MESSAGE_BYTES + message.size, expires_at)


def _as_received(uri: MqUri, publication: Publication) -> Message:
    headers = dict(publication.headers)
    optional = {
        "correlation-id": publication.correlation_id,
        "type": publication.type,
        "priority": publication.priority,
        "reply-to": publication.reply_to,
        "persistent": "true" if publication.persistent else None,
    }
    headers.update({name: str(value) for name, value in optional.items() if value is not None})
    return Message(
        mq_uri=uri,
        message_id=publication.message_id,
        body=publication.body,
        content_type=publication.content_type,
        headers=headers,
        redelivered=False,
        received_at=time.time(),
    )

"""MemoryMQConnector: queues and topics inside the process, with the semantics of the real brokers.

For trying things out and for tests: the main job runs with nothing installed. Messages die with the process.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count

from app.config.settings import ServiceSettings
from app.connectors.base import ConnectorContext, Delivery, Destination, Listener, MQConnector, Subscription
from app.domain.errors import Draining, NotSupportedByBroker, Overloaded
from app.domain.link import LinkState, LinkStatus
from app.domain.message import Message, Publication
from app.domain.uri import MqUri

#: Bounds of one queue.
MAX_MESSAGES = 100_000
MAX_BYTES = 256 << 20


@dataclass(slots=True)
class _Stored:
    message: Message
    expires_at: float | None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


@dataclass(slots=True, eq=False)
class _Consumer:
    listener: Listener
    prefetch: int | None
    unacked: dict[str, _Stored] = field(default_factory=dict)

    @property
    def has_credit(self) -> bool:
        return self.prefetch is None or len(self.unacked) < self.prefetch


class _Queue:
    """Messages wait here until a consumer with credit takes them, in turns."""

    def __init__(self) -> None:
        self.waiting: deque[_Stored] = deque()
        self.consumers: deque[_Consumer] = deque()
        self._bytes = 0
        self._tokens = count(1)

    def put(self, stored: _Stored) -> None:
        size = len(stored.message.body)
        if len(self.waiting) >= MAX_MESSAGES or self._bytes + size > MAX_BYTES:
            raise Overloaded("the queue in memory is full", retry_after=1)
        self._bytes += size
        self.waiting.append(stored)
        self.dispatch()

    def give_back(self, stored: _Stored) -> None:
        stored.message = replace(stored.message, redelivered=True)
        self._bytes += len(stored.message.body)
        self.waiting.appendleft(stored)

    def dispatch(self) -> None:
        while self.waiting and (consumer := self._next_consumer()) is not None:
            stored = self.waiting.popleft()
            self._bytes -= len(stored.message.body)
            if not stored.expired:
                self._hand_over(consumer, stored)

    def _next_consumer(self) -> _Consumer | None:
        for _ in range(len(self.consumers)):
            self.consumers.rotate(-1)
            if self.consumers[-1].has_credit:
                return self.consumers[-1]
        return None

    def _hand_over(self, consumer: _Consumer, stored: _Stored) -> None:
        token = str(next(self._tokens))
        if consumer.prefetch is not None:
            consumer.unacked[token] = stored
        consumer.listener.on_message(Delivery(stored.message, token, 1))


class _QueueSubscription(Subscription):
    def __init__(self, queue: _Queue, consumer: _Consumer) -> None:
        self._queue = queue
        self._consumer = consumer

    def ack(self, delivery: Delivery) -> bool:
        if self._consumer.unacked.pop(delivery.token, None) is None:
            return False
        self._queue.dispatch()
        return True

    def nack(self, delivery: Delivery) -> bool:
        stored = self._consumer.unacked.pop(delivery.token, None)
        if stored is None:
            return False
        self._queue.give_back(stored)
        self._queue.dispatch()
        return True

    async def close(self, timeout: float) -> None:
        if self._consumer in self._queue.consumers:
            self._queue.consumers.remove(self._consumer)
        for stored in reversed(self._consumer.unacked.values()):
            self._queue.give_back(stored)
        self._consumer.unacked.clear()
        self._queue.dispatch()


class _TopicSubscription(Subscription):
    def __init__(self, listeners: list[Listener], listener: Listener) -> None:
        self._listeners = listeners
        self._listener = listener

    def ack(self, delivery: Delivery) -> bool:
        return False

    def nack(self, delivery: Delivery) -> bool:
        return False

    async def close(self, timeout: float) -> None:
        if self._listener in self._listeners:
            self._listeners.remove(self._listener)


class MemoryMQConnector(MQConnector):
    """Always up, confirms at once."""

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        super().__init__(service, settings, context)
        self._queues: dict[MqUri, _Queue] = {}
        self._topics: dict[MqUri, list[Listener]] = {}
        self._state, self._since = LinkState.CONNECTING, time.time()

    def _enter(self, state: LinkState) -> None:
        if state is not self._state:
            previous, self._state, self._since = self._state, state, time.time()
            self.context.on_state(previous, state)

    async def start(self) -> None:
        self._enter(LinkState.UP)

    async def close(self, timeout: float) -> None:
        self._enter(LinkState.CLOSED)

    @property
    def status(self) -> LinkStatus:
        up = self._state is LinkState.UP
        return LinkStatus(state=self._state, since=self._since, broker="Memory", address="memory", epoch=1, ever_up=up)

    @property
    def in_flight(self) -> int:
        return 0

    def check(self, destination: Destination, publication: Publication) -> None:
        if publication.delay_ms is not None or publication.group is not None:
            raise NotSupportedByBroker("delay and group are not mapped to this broker")

    async def publish(
        self, destination: Destination, publication: Publication, *, timeout: float, confirm: bool = True
    ) -> None:
        if self._state is not LinkState.UP:
            raise Draining(f"{self.service} takes no new work", retry_after=1)
        self.check(destination, publication)
        message = _as_received(destination.uri, publication)
        if destination.uri.is_queue:
            ttl = publication.ttl_ms
            expires_at = None if ttl is None else time.time() + ttl / 1000
            self._queues.setdefault(destination.uri, _Queue()).put(_Stored(message, expires_at))
        else:
            for number, listener in enumerate(list(self._topics.get(destination.uri, ())), 1):
                listener.on_message(Delivery(message, str(number), 1))

    async def subscribe(
        self, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int, timeout: float
    ) -> Subscription:
        if not destination.uri.is_queue:
            listeners = self._topics.setdefault(destination.uri, [])
            listeners.append(listener)
            return _TopicSubscription(listeners, listener)
        queue = self._queues.setdefault(destination.uri, _Queue())
        consumer = _Consumer(listener, prefetch if acknowledge else None)
        queue.consumers.append(consumer)
        queue.dispatch()
        return _QueueSubscription(queue, consumer)


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

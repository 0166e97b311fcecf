"""MemoryMQConnector: queues and topics inside the process, with the semantics of the real brokers.

For trying things out and for tests: the main job runs with nothing installed. Messages die with the process.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from app.config.settings import ServiceSettings
from app.connectors.base import ConnectorContext, Delivery, Destination, Listener, MQConnector, Subscription
from app.domain.errors import Draining, NotSupportedByBroker, Overloaded
from app.domain.link import LinkState, LinkStatus
from app.domain.message import Message, Publication
from app.domain.uri import MqUri

#: Bounds of everything the queues of one service hold, delivered and not yet acked messages included.
MAX_MESSAGES = 100_000
MAX_BYTES = 256 << 20
#: What a message costs beside its body and headers: the objects around them.
_MESSAGE_BYTES = 512


@dataclass(slots=True)
class _Stored:
    message: Message
    size: int
    expires_at: float | None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


class _Room:
    """What all queues of a service share: a message is in it from its publish until its end."""

    def __init__(self) -> None:
        self._messages = 0
        self._bytes = 0

    def has_place(self, stored: _Stored) -> bool:
        return self._messages < MAX_MESSAGES and self._bytes + stored.size <= MAX_BYTES

    def enter(self, stored: _Stored) -> None:
        self._messages += 1
        self._bytes += stored.size

    def leave(self, stored: _Stored) -> None:
        self._messages -= 1
        self._bytes -= stored.size


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

    def __init__(self, room: _Room) -> None:
        self._room = room
        self._waiting: deque[_Stored] = deque()
        self._consumers: deque[_Consumer] = deque()
        self._tokens = count(1)
        self._dispatching = False

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._consumers

    def put(self, stored: _Stored) -> None:
        self._room.enter(stored)
        self._waiting.append(stored)
        self._dispatch()

    def drop_expired(self) -> None:
        """As RabbitMQ does, only at the head: what waits behind an older message waits with it."""
        while self._waiting and self._waiting[0].expired:
            self._room.leave(self._waiting.popleft())

    def join(self, consumer: _Consumer) -> None:
        self._consumers.append(consumer)
        self._dispatch()

    def part(self, consumer: _Consumer) -> None:
        """What this consumer did not ack goes to the others, in its old order."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        for stored in reversed(consumer.unacked.values()):
            self._give_back(stored)
        consumer.unacked.clear()
        self._dispatch()

    def ack(self, consumer: _Consumer, token: str) -> bool:
        stored = consumer.unacked.pop(token, None)
        if stored is None:
            return False
        self._room.leave(stored)
        self._dispatch()
        return True

    def nack(self, consumer: _Consumer, token: str) -> bool:
        stored = consumer.unacked.pop(token, None)
        if stored is None:
            return False
        self._give_back(stored)
        self._dispatch()
        return True

    def _give_back(self, stored: _Stored) -> None:
        stored.message = replace(stored.message, redelivered=True)
        self._waiting.appendleft(stored)

    def _dispatch(self) -> None:
        if self._dispatching:  # a listener that acks at once: the loop below goes on with what that set free
            return
        self._dispatching = True
        try:
            self.drop_expired()
            while self._waiting and (consumer := self._next_consumer()) is not None:
                self._hand_over(consumer, self._waiting.popleft())
                self.drop_expired()
        finally:
            self._dispatching = False

    def _next_consumer(self) -> _Consumer | None:
        for _ in range(len(self._consumers)):
            self._consumers.rotate(-1)
            if self._consumers[-1].has_credit:
                return self._consumers[-1]
        return None

    def _hand_over(self, consumer: _Consumer, stored: _Stored) -> None:
        token = str(next(self._tokens))
        if consumer.prefetch is None:
            self._room.leave(stored)
        else:
            consumer.unacked[token] = stored
        consumer.listener.on_message(Delivery(stored.message, token, 1))


class _QueueSubscription(Subscription):
    def __init__(self, queue: _Queue, consumer: _Consumer, on_close: Callable[[], None]) -> None:
        self._queue = queue
        self._consumer = consumer
        self._on_close = on_close

    def ack(self, delivery: Delivery) -> bool:
        return self._queue.ack(self._consumer, delivery.token)

    def nack(self, delivery: Delivery) -> bool:
        return self._queue.nack(self._consumer, delivery.token)

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

    def __init__(self, service: str, settings: ServiceSettings, context: ConnectorContext) -> None:
        super().__init__(service, settings, context)
        self._room = _Room()
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
            self._store(message, publication.ttl_ms)
        else:
            for number, listener in enumerate(list(self._topics.get(destination.uri, ())), 1):
                listener.on_message(Delivery(message, str(number), 1))

    def _store(self, message: Message, ttl_ms: int | None) -> None:
        expires_at = None if ttl_ms is None else time.time() + ttl_ms / 1000
        stored = _Stored(message, _size(message), expires_at)
        if not self._room.has_place(stored):
            self._drop_expired()
        if not self._room.has_place(stored):
            raise Overloaded("the queues in memory are full", retry_after=1)
        self._queue(message.mq_uri).put(stored)

    def _queue(self, uri: MqUri) -> _Queue:
        return self._queues.setdefault(uri, _Queue(self._room))

    def _drop_expired(self) -> None:
        for uri, queue in list(self._queues.items()):
            queue.drop_expired()
            self._drop_idle(uri)

    def _drop_idle(self, uri: MqUri) -> None:
        # Where undeclared destinations are allowed, names come without end.
        if uri in self._queues and self._queues[uri].is_idle:
            del self._queues[uri]

    async def subscribe(
        self, destination: Destination, listener: Listener, *, acknowledge: bool, prefetch: int, timeout: float
    ) -> Subscription:
        uri = destination.uri
        if not uri.is_queue:
            self._topics.setdefault(uri, []).append(listener)
            return _TopicSubscription(partial(self._leave_topic, uri, listener))
        queue = self._queue(uri)
        consumer = _Consumer(listener, prefetch if acknowledge else None)
        queue.join(consumer)
        return _QueueSubscription(queue, consumer, partial(self._drop_idle, uri))

    def _leave_topic(self, uri: MqUri, listener: Listener) -> None:
        left = [other for other in self._topics.pop(uri, ()) if other is not listener]
        if left:
            self._topics[uri] = left


def _size(message: Message) -> int:
    return _MESSAGE_BYTES + len(message.body) + sum(len(name) + len(text) for name, text in message.headers.items())


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

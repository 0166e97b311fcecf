"""A Queue, or a durable subscription, in memory: messages wait until a consumer with credit takes them, in turns."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count

from app.connectors.base import Delivery, Listener
from app.domain.message import Message

#: Bounds of everything the queues of one service hold, delivered and not yet acked messages included.
MAX_MESSAGES = 100_000
MAX_BYTES = 256 << 20
#: What a message costs beside its body and headers: the objects around them.
MESSAGE_BYTES = 512


@dataclass(slots=True)
class Stored:
    """A message in a queue: `size` in bytes, with what it costs; `expires_at` in Unix seconds."""

    message: Message
    size: int
    expires_at: float | None

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and time.time() >= self.expires_at


class Room:
    """What all queues of a service share: a message is in it from its publish until its end."""

    def __init__(self) -> None:
        self._messages = 0
        self.bytes = 0

    def has_place(self, *stored: Stored) -> bool:
        size = sum(each.size for each in stored)
        return self._messages + len(stored) <= MAX_MESSAGES and self.bytes + size <= MAX_BYTES

    def enter(self, stored: Stored) -> None:
        self._messages += 1
        self.bytes += stored.size

    def leave(self, stored: Stored) -> None:
        self._messages -= 1
        self.bytes -= stored.size


@dataclass(slots=True, eq=False)
class QueueConsumer:
    """Who takes; with a prefetch each message has to be acked."""

    listener: Listener
    prefetch: int | None
    unacked: dict[str, Stored] = field(default_factory=dict)

    @property
    def has_credit(self) -> bool:
        return self.prefetch is None or len(self.unacked) < self.prefetch


class MemoryQueue:
    """Messages wait here until a consumer with credit takes them, in turns."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._waiting: deque[Stored] = deque()
        self._consumers: deque[QueueConsumer] = deque()
        self._tokens = count(1)
        self._dispatching = False
        self._discarded = False

    @property
    def is_idle(self) -> bool:
        return not self._waiting and not self._consumers

    def put(self, stored: Stored) -> None:
        self._room.enter(stored)
        self._waiting.append(stored)
        self._dispatch()

    def discard(self) -> None:
        """Nobody keeps it any more: what is in it goes, and so does what comes back."""
        self._discarded = True
        while self._waiting:
            self._room.leave(self._waiting.popleft())

    def drop_expired(self) -> None:
        """As RabbitMQ does, only at the head: what waits behind an older message waits with it."""
        while self._waiting and self._waiting[0].expired:
            self._room.leave(self._waiting.popleft())

    def join(self, consumer: QueueConsumer) -> None:
        self._consumers.append(consumer)
        self._dispatch()

    def part(self, consumer: QueueConsumer) -> None:
        """What this consumer did not ack goes to the others, in its old order."""
        if consumer in self._consumers:
            self._consumers.remove(consumer)
        for stored in reversed(consumer.unacked.values()):
            self._give_back(stored)
        consumer.unacked.clear()
        self._dispatch()

    def ack(self, consumer: QueueConsumer, token: str) -> bool:
        stored = consumer.unacked.pop(token, None)
        if stored is None:
            return False
        self._room.leave(stored)
        self._dispatch()
        return True

    def nack(self, consumer: QueueConsumer, token: str) -> bool:
        stored = consumer.unacked.pop(token, None)
        if stored is None:
            return False
        self._give_back(stored)
        self._dispatch()
        return True

    def _give_back(self, stored: Stored) -> None:
        if self._discarded:
            self._room.leave(stored)
            return
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

    def _next_consumer(self) -> QueueConsumer | None:
        for _ in range(len(self._consumers)):
            self._consumers.rotate(-1)
            if self._consumers[-1].has_credit:
                return self._consumers[-1]
        return None

    def _hand_over(self, consumer: QueueConsumer, stored: Stored) -> None:
        token = str(next(self._tokens))
        if consumer.prefetch is None:
            self._room.leave(stored)
        else:
            consumer.unacked[token] = stored
        consumer.listener.on_message(Delivery(stored.message, token, 1))

"""A stream in memory: what is published stays for a while, and everybody reads it from where they like."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from app.connectors.base import Delivery, Listener, Subscription
from app.connectors.memory_queue import MESSAGE_BYTES
from app.domain.message import Message
from app.domain.stream import BEFORE_FIRST, Missing, StreamStart

#: Bounds of one stream; the oldest messages go, as where a broker's retention ends.
MAX_MESSAGES = 10_000
MAX_BYTES = 64 << 20
#: Seconds of what RabbitMQ writes behind a number (rabbitmq.com/docs/streams, "Retention").
_UNITS = {"Y": 31_536_000, "M": 2_592_000, "D": 86_400, "h": 3_600, "m": 60, "s": 1}


@dataclass(slots=True, eq=False)
class StreamConsumer:
    """Who reads: `last` is the offset before the next one, `unacked` what it has and did not acknowledge."""

    listener: Listener
    prefetch: int
    last: int
    #: Whether something was to follow `last` that is not there.
    missing: Missing | None
    unacked: int = 0
    #: It is being given messages: an ack of one of them must not begin that anew.
    busy: bool = False


class MemoryStream:
    """Bounded in messages, bytes and age (`7D`)."""

    def __init__(self, max_age: str | None) -> None:
        self.bytes = 0
        self._max_age = None if max_age is None else int(max_age[:-1]) * _UNITS[max_age[-1]]
        self._log: deque[Message] = deque()
        self._end = BEFORE_FIRST
        self._consumers: dict[StreamConsumer, None] = {}

    @property
    def _oldest(self) -> int:
        return self._end + 1 - len(self._log)

    def append(self, message: Message) -> None:
        self._log.append(message)
        self._end += 1
        self.bytes += _size(message)
        self._expire()
        for consumer in list(self._consumers):
            self.dispatch(consumer)

    def _expire(self) -> None:
        old = None if self._max_age is None else time.time() - self._max_age
        while len(self._log) > 1 and (
            len(self._log) > MAX_MESSAGES
            or self.bytes > MAX_BYTES
            or (old is not None and self._log[0].received_at < old)
        ):
            self.bytes -= _size(self._log.popleft())

    def subscribe(self, listener: Listener, start: StreamStart, prefetch: int) -> Subscription:
        """Read from there on."""
        self._expire()
        last, missing = self._place(start)
        consumer = StreamConsumer(listener, prefetch, last, missing)
        self._consumers[consumer] = None
        self.dispatch(consumer)
        return _StreamSubscription(self, consumer, self._part)

    def _place(self, start: StreamStart) -> tuple[int, Missing | None]:
        """The offset to go on after, and what is missing there."""
        if start.kind == "after" and start.value > self._end:
            return self._end, "restart"  # told with the next one
        if start.kind == "after":
            return max(start.value, self._oldest - 1), "expired" if start.value < self._oldest - 1 else None
        if start.kind == "time":
            older = sum(message.received_at < start.value for message in self._log)
            return self._oldest - 1 + older, None
        return {"first": self._oldest - 1, "last": max(self._end - 1, BEFORE_FIRST)}.get(start.kind, self._end), None

    def _part(self, consumer: StreamConsumer) -> None:
        self._consumers.pop(consumer, None)

    def dispatch(self, consumer: StreamConsumer) -> None:
        """Give it what its credit allows."""
        if consumer.busy:
            return
        consumer.busy = True
        try:
            self._dispatch(consumer)
        finally:
            consumer.busy = False

    def _dispatch(self, consumer: StreamConsumer) -> None:
        while consumer in self._consumers and consumer.unacked < consumer.prefetch and consumer.last < self._end:
            offset = max(consumer.last + 1, self._oldest)
            missing: Missing | None = consumer.missing or ("expired" if offset > consumer.last + 1 else None)
            consumer.last, consumer.missing = offset, None
            consumer.unacked += 1
            message = self._log[offset - self._oldest]
            consumer.listener.on_message(Delivery(message, str(offset), 1, offset, missing))


class _StreamSubscription(Subscription):
    def __init__(self, stream: MemoryStream, consumer: StreamConsumer, part: Callable[[StreamConsumer], None]) -> None:
        self._stream = stream
        self._consumer = consumer
        self._part = part

    def ack(self, delivery: Delivery) -> bool:
        if delivery.offset is None or not self._consumer.unacked:
            return False
        self._consumer.unacked -= 1
        self._stream.dispatch(self._consumer)
        return True

    def nack(self, delivery: Delivery) -> bool:
        return False

    async def close(self, timeout: float) -> None:
        self._part(self._consumer)


def _size(message: Message) -> int:
    return MESSAGE_BYTES + message.size
